// Package rendered has the objects that kustomize and Helm make of what this project ships, for tests.
package rendered

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"
)

// Objects are what a kustomization or a chart gives.
type Objects []*unstructured.Unstructured

// Read takes objects from YAML documents.
func Read(documents []byte) (Objects, error) {
	var all Objects
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(documents), 4096)
	for {
		u := &unstructured.Unstructured{}
		err := decoder.Decode(&u.Object)
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, fmt.Errorf("reading objects: %w", err)
		}
		if len(u.Object) > 0 { // a template may give nothing
			all = append(all, u)
		}
	}
}

// Kustomize renders a kustomization; a warning fails the test.
func Kustomize(t testing.TB, program, dir string) Objects {
	t.Helper()
	return output(t.Context(), t, program, "build", dir)
}

// Overlay renders a folder of manifests/ as an overlay puts it into another namespace, under another name. Components and
// transformers are such folders, too.
func Overlay(t testing.TB, program, manifests string, o Overlaid) Objects {
	t.Helper()
	return Kustomize(t, program, Folder(t, manifests, o))
}

// Folder writes an overlay, and returns where it is.
func Folder(t testing.TB, manifests string, o Overlaid) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	paths := func(names []string) string {
		var all []string
		for _, name := range names {
			relative, err := filepath.Rel(dir, filepath.Join(manifests, name))
			require.NoError(t, err)
			all = append(all, relative)
		}
		return strings.Join(all, ", ")
	}
	content := fmt.Sprintf(`
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [%s]
components: [%s]
transformers: [%s]
namespace: %s
labels: [{includeSelectors: true, pairs: {app.kubernetes.io/instance: %s}}]
%s
`, paths([]string{o.Resource}), paths(o.Components), paths(o.Transformers), o.Namespace, o.Installation, o.More)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(content), 0o600))
	return dir
}

// Overlaid says what an overlay is made of.
type Overlaid struct {
	Resource                 string
	Components, Transformers []string
	Namespace, Installation  string
	More                     string // YAML, of the kustomization
}

// Template renders a chart as `helm template` does, with its hooks. What it says to stderr fails the test.
func Template(t testing.TB, program, release, chart string, args ...string) Objects {
	t.Helper()
	return output(t.Context(), t, program, append([]string{"template", release, chart}, args...)...)
}

func output(ctx context.Context, t testing.TB, program string, args ...string) Objects {
	t.Helper()
	cmd := exec.CommandContext(ctx, program, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, "%s: %s", cmd, &stderr)
	require.Empty(t, stderr.String(), "%s warns", cmd)
	all, err := Read(out)
	require.NoError(t, err)
	return all
}

// Of returns the objects of some kinds.
func (o Objects) Of(kinds ...string) Objects {
	var found Objects
	for _, u := range o {
		if slices.Contains(kinds, u.GetKind()) {
			found = append(found, u)
		}
	}
	return found
}

// But returns the objects of all other kinds.
func (o Objects) But(kinds ...string) Objects {
	return slices.DeleteFunc(slices.Clone(o), func(u *unstructured.Unstructured) bool { return slices.Contains(kinds, u.GetKind()) })
}

// Into decodes the one object of a kind and name.
func Into[T any](t testing.TB, o Objects, kind, name string) *T {
	t.Helper()
	for _, u := range o.Of(kind) {
		if u.GetName() == name {
			return Decode[T](t, u)
		}
	}
	require.FailNow(t, "no such object", "%s %s", kind, name)
	return nil
}

// Decode makes an object one of a type.
func Decode[T any](t testing.TB, u *unstructured.Unstructured) *T {
	t.Helper()
	typed := new(T)
	require.NoError(t, runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, typed))
	return typed
}
