package manifests_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
)

// objects are what a kustomization gives.
type objects []*unstructured.Unstructured

// folder is the path of a kustomization of this project.
func folder(t *testing.T, name string) string {
	t.Helper()
	root, err := filepath.Abs(filepath.Join("..", "..", "manifests"))
	require.NoError(t, err)
	return filepath.Join(root, name)
}

// build renders a kustomization.
func build(t *testing.T, dir string) objects {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), kustomize, "build", dir)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, "kustomize build %s: %s", dir, &stderr)
	require.Empty(t, stderr.String(), "kustomize build %s warns", dir)
	var built objects
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(out), 4096)
	for {
		u := &unstructured.Unstructured{}
		err := decoder.Decode(&u.Object)
		if errors.Is(err, io.EOF) {
			return built
		}
		require.NoError(t, err)
		built = append(built, u)
	}
}

// moved renders the whole installation as an overlay puts it into another namespace, under another name.
func moved(t *testing.T, namespace, installation string) objects {
	t.Helper()
	return overlay(t, "default", []string{"wiring"}, namespace, installation)
}

func overlay(t *testing.T, resource string, transformers []string, namespace, installation string) objects {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	path := func(name string) string {
		relative, err := filepath.Rel(dir, folder(t, name))
		require.NoError(t, err)
		return relative
	}
	for i, name := range transformers {
		transformers[i] = path(name)
	}
	content := fmt.Sprintf(`
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [%s]
transformers: [%s]
namespace: %s
labels: [{includeSelectors: true, pairs: {app.kubernetes.io/instance: %s}}]
`, path(resource), strings.Join(transformers, ", "), namespace, installation)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(content), 0o600))
	return build(t, dir)
}

// of returns the objects of a kind.
func (o objects) of(kinds ...string) objects {
	var found objects
	for _, u := range o {
		for _, kind := range kinds {
			if u.GetKind() == kind {
				found = append(found, u)
			}
		}
	}
	return found
}

// rights are the roles and their bindings.
func (o objects) rights() objects {
	return o.of("Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")
}

// into decodes the one object of a kind and name.
func into[T any](t *testing.T, o objects, kind, name string) *T {
	t.Helper()
	for _, u := range o.of(kind) {
		if u.GetName() == name {
			return decode[T](t, u)
		}
	}
	require.FailNow(t, "no such object", "%s %s", kind, name)
	return nil
}

func decode[T any](t *testing.T, u *unstructured.Unstructured) *T {
	t.Helper()
	typed := new(T)
	require.NoError(t, runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, typed))
	return typed
}

// server applies objects as an administrator.
type server struct {
	dynamic dynamic.Interface
	mapper  meta.RESTMapper
}

func newServer(cfg *rest.Config) (*server, error) {
	client, err := dynamic.NewForConfig(cfg)
	if err != nil {
		return nil, err
	}
	lookup, err := discovery.NewDiscoveryClientForConfig(cfg)
	if err != nil {
		return nil, err
	}
	groups, err := restmapper.GetAPIGroupResources(lookup)
	if err != nil {
		return nil, err
	}
	return &server{dynamic: client, mapper: restmapper.NewDiscoveryRESTMapper(groups)}, nil
}

// apply writes an object as `kubectl apply --server-side --validate=strict` does.
func (s *server) apply(ctx context.Context, u *unstructured.Unstructured) error {
	gvk := u.GroupVersionKind()
	mapping, err := s.mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
	if err != nil {
		return fmt.Errorf("applying %s %s: %w", u.GetKind(), u.GetName(), err)
	}
	var client dynamic.ResourceInterface = s.dynamic.Resource(mapping.Resource)
	if mapping.Scope.Name() == meta.RESTScopeNameNamespace {
		client = s.dynamic.Resource(mapping.Resource).Namespace(u.GetNamespace())
	}
	body, err := json.Marshal(u.Object)
	if err != nil {
		return err
	}
	_, err = client.Patch(ctx, u.GetName(), types.ApplyPatchType, body,
		metav1.PatchOptions{FieldManager: "test", FieldValidation: metav1.FieldValidationStrict})
	if err != nil {
		return fmt.Errorf("applying %s %s: %w", u.GetKind(), u.GetName(), err)
	}
	return nil
}

// applyAll applies objects with a new administrator's client, warnings being errors.
func applyAll(t *testing.T, all objects) {
	t.Helper()
	cfg := servers.Config()
	var warned warnings
	cfg.WarningHandler = &warned
	s, err := newServer(cfg)
	require.NoError(t, err)
	for _, u := range all {
		require.NoError(t, s.apply(t.Context(), u))
	}
	require.Empty(t, warned, "the API server warns")
}

type warnings []string

func (w *warnings) HandleWarningHeader(_ int, _, text string) { *w = append(*w, text) }

// admin is a client that RBAC does not bind.
func admin(t *testing.T) kubernetes.Interface {
	t.Helper()
	client, err := kubernetes.NewForConfig(servers.Config())
	require.NoError(t, err)
	return client
}

// namespace makes a namespace unless it is there. It goes with the control plane: no controller would empty it.
func namespace(t *testing.T, name string, labels map[string]string) {
	t.Helper()
	u := &unstructured.Unstructured{}
	u.SetAPIVersion("v1")
	u.SetKind("Namespace")
	u.SetName(name)
	u.SetLabels(labels)
	applyAll(t, objects{u})
}
