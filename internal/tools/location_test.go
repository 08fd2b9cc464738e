package tools

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestTheCheckoutIsFoundFromANestedModule(t *testing.T) {
	wd, err := os.Getwd()
	require.NoError(t, err)
	t.Chdir("kustomize")

	root, err := checkout()

	require.NoError(t, err)
	assert.Equal(t, filepath.Join(wd, "..", ".."), root)
}

func TestOutsideTheCheckoutTheErrorSaysWhereItLooked(t *testing.T) {
	t.Chdir(t.TempDir())
	wd, err := os.Getwd()
	require.NoError(t, err)

	_, err = checkout()

	assert.EqualError(t, err, "finding the checkout: no go.mod of the project in "+wd+" or above it")
}

func TestTheEnvironmentMovesTheCache(t *testing.T) {
	t.Setenv(cacheVariable, "/elsewhere")

	dir, err := cacheDir()

	require.NoError(t, err)
	assert.Equal(t, "/elsewhere", dir)
}

func TestWithoutAHomeTheCacheIsAFolderOfOurOwn(t *testing.T) {
	for _, name := range []string{cacheVariable, "HOME", "XDG_CACHE_HOME"} {
		t.Setenv(name, "")
	}
	t.Setenv("TMPDIR", t.TempDir())

	dir, err := cacheDir()
	require.NoError(t, err)
	again, err := cacheDir()
	require.NoError(t, err)
	assert.Equal(t, dir, again)
	assert.Equal(t, os.TempDir(), filepath.Dir(dir))

	require.NoError(t, os.Chmod(dir, 0o777))
	_, err = cacheDir()
	require.EqualError(t, err, dir+" can be written by others: set AIRFLOW_REQUEUE_CACHE to a folder of your own")

	require.NoError(t, os.Remove(dir))
	require.NoError(t, os.Symlink(t.TempDir(), dir))
	_, err = cacheDir()
	assert.ErrorContains(t, err, "can be written by others")
}

func TestEveryToolOfTheProjectIsPinned(t *testing.T) {
	for _, module := range All() {
		assert.FileExists(t, filepath.Join("..", "..", module.Dir, "go.mod"))
		assert.FileExists(t, filepath.Join("..", "..", module.Dir, "go.sum"))
	}
}
