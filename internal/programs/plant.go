package programs

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Edit is a source file, a piece of it that must be there exactly once, and what takes its place.
type Edit [3]string

// Overlay writes a fault's files to a folder, and returns what Build takes for them. root is the checkout.
func Overlay(t testing.TB, root, dir string, fault []Edit) []string {
	t.Helper()
	sources := map[string]string{}
	for _, e := range fault {
		file, before, after := e[0], e[1], e[2]
		if sources[file] == "" {
			content, err := os.ReadFile(filepath.Join(root, file))
			require.NoError(t, err)
			sources[file] = string(content)
		}
		require.Equal(t, 1, strings.Count(sources[file], before), "%s has exactly once: %s", file, before)
		sources[file] = strings.Replace(sources[file], before, after, 1)
	}
	replace := map[string]string{}
	for name, content := range sources {
		source, err := filepath.Abs(filepath.Join(root, name))
		require.NoError(t, err)
		replace[source] = filepath.Join(dir, strings.ReplaceAll(name, "/", "-"))
		require.NoError(t, os.WriteFile(replace[source], []byte(content), 0o600))
	}
	raw, err := json.Marshal(map[string]any{"Replace": replace})
	require.NoError(t, err)
	path := filepath.Join(dir, "overlay.json")
	require.NoError(t, os.WriteFile(path, raw, 0o600))
	return []string{"-overlay=" + path}
}
