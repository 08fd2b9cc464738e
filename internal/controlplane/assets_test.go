package controlplane

import (
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestAssetsTakesTheFolderOfTheEnvironment(t *testing.T) {
	dir := fakeAssets(t, "exit 1")
	t.Setenv(assetsVariable, dir)

	got, err := Assets(t.Context(), io.Discard)

	require.NoError(t, err)
	assert.Equal(t, dir, got)
}

func TestAssetsSaysWhichProgramTheFolderLacks(t *testing.T) {
	for name, spoil := range map[string]func(path string) error{
		"it is not there":       os.Remove,
		"it is not executable":  func(path string) error { return os.Chmod(path, 0o600) },
		"it is a folder":        func(path string) error { return replaceBy(path, os.Mkdir(path+".new", 0o700)) },
		"it is a dangling link": func(path string) error { return replaceBy(path, os.Symlink("nowhere", path+".new")) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := fakeAssets(t, "exit 1")
			require.NoError(t, spoil(filepath.Join(dir, "etcd")))
			t.Setenv(assetsVariable, dir)

			_, err := Assets(t.Context(), io.Discard)

			assert.EqualError(t, err, "finding etcd in KUBEBUILDER_ASSETS="+dir+
				": no such program there; without KUBEBUILDER_ASSETS they are built")
		})
	}
}

func TestVersionFlagsNameTheRelease(t *testing.T) {
	got := versionFlags(func(module string) string { return map[string]string{"k8s.io/kubernetes": "v1.36.3"}[module] })

	assert.Equal(t, "-X k8s.io/component-base/version.gitVersion=v1.36.3"+
		" -X k8s.io/component-base/version.gitMajor=1"+
		" -X k8s.io/component-base/version.gitMinor=36"+
		" -X k8s.io/component-base/version.gitTreeState=clean", got)
}

// fakeAssets gives a folder of servers that run script. envtest asks them for --help first.
func fakeAssets(t *testing.T, script string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range servers().Binaries {
		content := "#!/bin/sh\n[ \"$1\" = --help ] && exit 0\n" + script + "\n"
		require.NoError(t, writeExecutable(filepath.Join(dir, name), content))
	}
	return dir
}

// replaceBy puts path+".new" in the place of path, when its making did not fail.
func replaceBy(path string, made error) error {
	if made != nil {
		return made
	}
	if err := os.Remove(path); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
