package images

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"debug/buildinfo"
	"debug/elf"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// layout is an OCI layout, read as https://github.com/opencontainers/image-spec describes it.
type layout struct{ dir string }

type descriptor struct {
	MediaType, Digest string
	Platform          struct{ OS, Architecture string }
}

type manifest struct {
	MediaType   string
	Annotations map[string]string
	Config      descriptor
	Layers      []descriptor
	Manifests   []descriptor
}

// described is what an image says of itself.
type described struct{ program, version, revision string }

func (d described) annotations(t *testing.T, l layout) map[string]string {
	t.Helper()
	const key = "org.opencontainers.image."
	seconds := command(t, filepath.Join(l.dir, "..", "..", ".."), "git", "show", "--no-patch", "--format=%cI", "HEAD")
	created, err := time.Parse(time.RFC3339, seconds)
	require.NoError(t, err)
	return map[string]string{
		key + "title":         "airflow-requeue-" + d.program,
		key + "source":        "https://github.com/airflow-requeue/airflow-requeue",
		key + "documentation": "https://github.com/airflow-requeue/airflow-requeue#readme",
		key + "licenses":      "Apache-2.0",
		key + "version":       d.version,
		key + "revision":      d.revision,
		key + "created":       created.UTC().Format(time.RFC3339),
	}
}

// blob is content whose digest is right.
func (l layout) blob(t *testing.T, digest string) []byte {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(l.dir, "blobs", strings.ReplaceAll(digest, ":", "/")))
	require.NoError(t, err)
	sum := sha256.Sum256(content)
	require.Equal(t, digest, "sha256:"+hex.EncodeToString(sum[:]))
	return content
}

func (l layout) read(t *testing.T, d descriptor, into any) {
	t.Helper()
	require.NoError(t, json.Unmarshal(l.blob(t, d.Digest), into))
}

// index is the layout's only one.
func (l layout) index(t *testing.T) descriptor {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(l.dir, "index.json"))
	require.NoError(t, err)
	var top manifest
	require.NoError(t, json.Unmarshal(content, &top))
	require.Len(t, top.Manifests, 1)
	require.Equal(t, "application/vnd.oci.image.index.v1+json", top.Manifests[0].MediaType)
	return top.Manifests[0]
}

// images are those of the index, by platform; they and it say what they are.
func (l layout) images(t *testing.T, want described) map[string]manifest {
	t.Helper()
	said := func(m manifest) map[string]string {
		maps.DeleteFunc(m.Annotations, func(key, _ string) bool { return strings.HasPrefix(key, "org.opencontainers.image.base.") })
		return m.Annotations
	}
	var index manifest
	l.read(t, l.index(t), &index)
	assert.Equal(t, want.annotations(t, l), said(index))
	images := map[string]manifest{}
	for _, d := range index.Manifests {
		var image manifest
		l.read(t, d, &image)
		assert.Equal(t, "application/vnd.oci.image.manifest.v1+json", image.MediaType)
		assert.Equal(t, want.annotations(t, l), said(image))
		images[d.Platform.OS+"/"+d.Platform.Architecture] = image
	}
	return images
}

func keys[V any](m map[string]V) []string { return slices.Collect(maps.Keys(m)) }

// contents are the files of an image: licences by name, and all else.
type contents struct {
	licences []string
	others   map[string][]byte
}

// unpack reads the layers; whatever is in them, nobody may write to it.
func (l layout) unpack(t *testing.T, image manifest) contents {
	t.Helper()
	c := contents{others: map[string][]byte{}}
	for _, d := range image.Layers {
		assert.Equal(t, "application/vnd.oci.image.layer.v1.tar+gzip", d.MediaType)
		z, err := gzip.NewReader(bytes.NewReader(l.blob(t, d.Digest)))
		require.NoError(t, err)
		for r := tar.NewReader(z); ; {
			header, err := r.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			require.NoError(t, err)
			name := strings.TrimPrefix(path.Clean(header.Name), "/")
			assert.Zero(t, header.Mode&0o7222, name)
			switch {
			case header.Typeflag == tar.TypeDir:
			case header.Typeflag == tar.TypeReg && strings.HasPrefix(name, "licenses/"):
				assert.Zero(t, header.Mode&0o111, name)
				c.licences = append(c.licences, name)
			default:
				assert.EqualValues(t, tar.TypeReg, header.Typeflag, name)
				c.others[name], err = io.ReadAll(r)
				require.NoError(t, err)
			}
		}
	}
	return c
}

// only is the one file that is no licence: there is no shell, and nothing else that could be run.
func (c contents) only(t *testing.T, name string) []byte {
	t.Helper()
	require.Equal(t, []string{name}, keys(c.others))
	return c.others[name]
}

// lookAtBinary looks whether it is static, of its architecture, and built as it is said.
func lookAtBinary(t *testing.T, content []byte, architecture string, want described) {
	t.Helper()
	binary, err := elf.NewFile(bytes.NewReader(content))
	require.NoError(t, err)
	assert.Equal(t, map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}[architecture], binary.Machine)
	for _, program := range binary.Progs {
		assert.NotEqual(t, elf.PT_INTERP, program.Type, "it wants an interpreter")
	}
	libraries, err := binary.ImportedLibraries()
	assert.NoError(t, err)
	assert.Empty(t, libraries)

	info, err := buildinfo.Read(bytes.NewReader(content))
	require.NoError(t, err)
	settings := map[string]string{}
	for _, s := range info.Settings {
		settings[s.Key] = s.Value
	}
	assert.Equal(t, []string{"true", "0", "linux", architecture, want.revision},
		[]string{settings["-trimpath"], settings["CGO_ENABLED"], settings["GOOS"], settings["GOARCH"], settings["vcs.revision"]})
	var modules []string
	for _, m := range info.Deps {
		modules = append(modules, m.Path)
	}
	if want.program == "watcher" {
		assert.Contains(t, modules, "golang.org/x/crypto/x509roots/fallback")
	}
	assert.NotContains(t, modules, "github.com/stretchr/testify")
	assert.NotContains(t, modules, "sigs.k8s.io/controller-runtime")
}
