// Package images builds the images as a release does, and looks into them without the packages that made them.
package images

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var build = flag.Bool("images", false, "build the images, which takes minutes")

func TestImages(t *testing.T) {
	if !*build {
		t.Skip("make test-images builds the images")
	}
	checkout, err := filepath.Abs(filepath.Join("..", ".."))
	require.NoError(t, err)
	here, there := clone(t, checkout), clone(t, checkout)
	command(t, here, "hack/images.sh", "bin/images")
	command(t, there, "hack/images.sh", "bin/images")
	out := filepath.Join(here, "bin", "images")

	t.Run("two builds give one digest, and the same SBOMs", func(t *testing.T) {
		assert.Equal(t, files(t, out), files(t, filepath.Join(there, "bin", "images")))
	})
	for _, program := range []string{"watcher", "webhook"} {
		t.Run(program, func(t *testing.T) {
			want := described{
				program:  program,
				version:  command(t, here, "git", "describe", "--tags", "--always", "--dirty"),
				revision: command(t, here, "git", "rev-parse", "HEAD"),
			}
			l := layout{dir: filepath.Join(out, program)}
			images := l.images(t, want)
			assert.ElementsMatch(t, []string{"linux/amd64", "linux/arm64"}, keys(images))
			for platform, image := range images {
				t.Run(platform, func(t *testing.T) { look(t, l, image, platform, want) })
				t.Run("SBOM of "+platform, func(t *testing.T) {
					lookAtSBOM(t, filepath.Join(out, "sbom", program+"-"+strings.ReplaceAll(platform, "/", "-")+".spdx.json"), want)
				})
			}
			t.Run("can be pushed", func(t *testing.T) { push(t, l) })
		})
	}
}

// clone gives another checkout of the same commit, with the same changes that are not committed.
func clone(t *testing.T, checkout string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "checkout")
	command(t, checkout, "git", "clone", "--quiet", checkout, dir)
	command(t, dir, "git", "checkout", "--quiet", command(t, checkout, "git", "rev-parse", "HEAD"))
	changed := command(t, checkout, "git", "ls-files", "--modified", "--others", "--exclude-standard")
	for file := range strings.Lines(changed) {
		file = strings.TrimSpace(file)
		content, err := os.ReadFile(filepath.Join(checkout, file))
		require.NoError(t, err)
		info, err := os.Stat(filepath.Join(checkout, file))
		require.NoError(t, err)
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, file)), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(dir, file), content, info.Mode()))
	}
	return dir
}

// command runs a program and returns what it prints, without the last newline.
func command(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	var stderr bytes.Buffer
	cmd.Dir, cmd.Stderr = dir, &stderr
	out, err := cmd.Output()
	require.NoError(t, err, "%q: %s", args, stderr.String())
	return strings.TrimSuffix(string(out), "\n")
}

// files are the checksums of a folder's files.
func files(t *testing.T, dir string) string {
	t.Helper()
	return command(t, dir, "bash", "-c", "find . -type f -print0 | sort -z | xargs -0 sha256sum")
}

// look takes an image apart: what is written in it, and what is in its layers.
func look(t *testing.T, l layout, image manifest, platform string, want described) {
	var config struct {
		OS, Architecture string
		Config           map[string]any
	}
	l.read(t, image.Config, &config)
	assert.Equal(t, platform, config.OS+"/"+config.Architecture)
	labels := map[string]any{}
	for key, value := range want.annotations(t, l) {
		labels[key] = value
	}
	assert.Equal(t, map[string]any{
		"User":       "65532:65532",
		"Entrypoint": []any{"/ko-app/" + want.program},
		"Env":        []any{"PATH=/ko-app", "KO_DATA_PATH=/var/run/ko"},
		"Labels":     labels,
	}, config.Config)

	content := l.unpack(t, image)
	binary := content.only(t, "ko-app/"+want.program)
	lookAtBinary(t, binary, config.Architecture, want)
	assert.Contains(t, content.licences, "licenses/go.dev/LICENSE")
	assert.Contains(t, content.licences, "licenses/github.com/airflow-requeue/airflow-requeue/LICENSE")
	assert.Contains(t, content.licences, "licenses/github.com/prometheus/client_golang/prometheus/NOTICE")
	if want.program == "watcher" {
		assert.Contains(t, content.licences, "licenses/github.com/go-sql-driver/mysql/driver.go", "MPL-2.0 asks for the source")
	}
	if config.Architecture != runtime.GOARCH {
		return
	}
	path := filepath.Join(t.TempDir(), want.program)
	require.NoError(t, os.WriteFile(path, binary, 0o700))
	assert.Contains(t, command(t, ".", path, "--help"), "airflow-requeue-"+want.program+" ")
	assert.Regexp(t, "^airflow-requeue-"+want.program+" "+want.version+` go1\.\S+$`, command(t, ".", path, "--version"))
}

// lookAtSBOM looks for the program, and for a module that only it is made of.
func lookAtSBOM(t *testing.T, file string, want described) {
	content, err := os.ReadFile(file)
	require.NoError(t, err)
	var sbom struct {
		SPDXVersion string
		Packages    []struct{ Name, VersionInfo string }
	}
	require.NoError(t, json.Unmarshal(content, &sbom))
	assert.Equal(t, "SPDX-2.3", sbom.SPDXVersion)
	versions := map[string]string{}
	for _, p := range sbom.Packages {
		versions[p.Name] = p.VersionInfo
	}
	assert.NotContains(t, string(content), "(devel)", "of the program itself")
	assert.Contains(t, versions, "github.com/airflow-requeue/airflow-requeue")
	module := map[string]string{"watcher": "modernc.org/sqlite", "webhook": "github.com/go-json-experiment/json"}[want.program]
	assert.Equal(t, command(t, ".", "go", "list", "-m", "-f", "{{.Version}}", module), versions[module])
}
