package tools

import (
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestGoBuildBuildsTheToolsOfAModule(t *testing.T) {
	dir, out := toolModule(t, "func main() { print(version) }\n\nvar version = `unknown`"), t.TempDir()

	err := goBuild(dir, "-s -w -X main.version=v3")(t.Context(), out, &buildLog{})

	require.NoError(t, err)
	assert.Empty(t, Missing(out, []string{"hammer"}))
	content, err := os.ReadFile(filepath.Join(out, "hammer"))
	require.NoError(t, err)
	assert.NotContains(t, string(content), dir, "the path of the source")
}

func TestGoBuildShowsTheCompilersWords(t *testing.T) {
	dir := toolModule(t, "func main() { strike() }")
	log := &buildLog{}

	err := goBuild(dir, "")(t.Context(), t.TempDir(), log)

	require.ErrorContains(t, err, "running go build in "+dir+": exit status 1\n")
	assert.ErrorContains(t, err, "undefined: strike")
}

func TestTheBuildLogCountsPackagesAndKeepsTheRest(t *testing.T) {
	log := &buildLog{}
	for _, part := range []string{
		"go: downloading k8s.io/api v0.36.3\nk8s.io/a", "pi/core/v1\ngo.etcd.io/etcd/server/v3\n",
		"# k8s.io/broken\nbroken.go:3:1: syntax", " error\nlast words",
	} {
		_, err := io.WriteString(log, part)
		require.NoError(t, err)
	}

	assert.Equal(t, "1 modules downloaded, 2 packages compiled", log.progress())
	assert.Equal(t, "\n# k8s.io/broken\nbroken.go:3:1: syntax error\nlast words", log.said())
	assert.Empty(t, (&buildLog{}).said())
	assert.Equal(t, "nothing to show yet", (&buildLog{}).progress())
}

func TestAKeyDependsOnAllThatGoesIntoABuild(t *testing.T) {
	keys := map[string]bool{}
	for _, parts := range [][3]string{{"mod", "sum", "flags"}, {"mod2", "sum", "flags"}, {"mod", "sum2", "flags"}, {"mod", "sum", ""}, {"mods", "um", "flags"}} {
		keys[key([]byte(parts[0]), []byte(parts[1]), parts[2])] = true
	}
	assert.Len(t, keys, 5)
}

func TestLinkerFlagsCanNameARequiredVersion(t *testing.T) {
	goMod := "module m\n\nrequire example.com/a v1.0.0\n\nrequire (\n\texample.com/b v2.3.4 // indirect\n)\n\nreplace (\n\texample.com/c => example.com/b v9.9.9\n)\n"
	for module, want := range map[string]string{"example.com/a": "v1.0.0", "example.com/b": "v2.3.4", "example.com/c": ""} {
		m := Module{LDFlags: func(version func(string) string) string { return "-X v=" + version(module) }}
		assert.Equal(t, "-s -w -X v="+want, linkerFlags(m, []byte(goMod)))
	}
	assert.Equal(t, "-s -w", linkerFlags(Module{}, nil))
}

// toolModule gives a module whose one tool is a program with the given declarations.
func toolModule(t *testing.T, declarations string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range map[string]string{
		"go.mod":         "module example.com/toolbox\n\ngo 1.26\n\ntool example.com/toolbox/hammer\n",
		"hammer/main.go": "package main\n\n" + declarations + "\n",
	} {
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
	}
	return dir
}
