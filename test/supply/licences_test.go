// Package supply tests what watches over the supply of code: the check of licences, and the workflows that run it.
package supply

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestLicences(t *testing.T) {
	root, err := filepath.Abs(filepath.Join("..", ".."))
	require.NoError(t, err)
	for _, c := range []struct {
		name, dir, allowed, packages string
		want                         string // in what is said; empty where the check passes
	}{
		{"one that is allowed passes", root, "BSD-3-Clause", "github.com/spf13/pflag", ""},
		{"one that is not fails", root, "Apache-2.0,MIT", "github.com/spf13/pflag", "Not allowed license 'BSD-3-Clause' found for library 'github.com/spf13/pflag'"},
		{"one of a dependency fails", root, "Apache-2.0", "./internal/flags", "Not allowed license 'BSD-3-Clause' found for library 'github.com/spf13/pflag'"},
		{"a module without one fails", unlicensed(t), "Apache-2.0,BSD-3-Clause,MIT", "./...", "example.com/unlicensed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			said, err := check(t, c.dir, c.allowed, c.packages)
			if c.want == "" {
				assert.NoError(t, err, said)
				return
			}
			require.ErrorContains(t, err, "exit status 1")
			assert.Contains(t, said, c.want)
		})
	}
}

// check runs what `make licences` runs.
func check(t *testing.T, dir, allowed, packages string) (said string, err error) {
	t.Helper()
	script, err := filepath.Abs(filepath.Join("..", "..", "hack", "licences.sh"))
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), script, "check", "--allowed_licenses="+allowed, packages)
	var out bytes.Buffer
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &out, &out
	err = cmd.Run()
	return out.String(), err
}

// unlicensed gives a module of one program, without a licence.
func unlicensed(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range map[string]string{"go.mod": "module example.com/unlicensed\n\ngo 1.26.0\n", "main.go": "package main\n\nfunc main() {}\n"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
	}
	return dir
}
