package manifests_test

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/kubernetes"

	"github.com/airflow-requeue/airflow-requeue/internal/rendered"
)

// objects are what a kustomization gives.
type objects rendered.Objects

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
	return objects(rendered.Kustomize(t, kustomize, dir))
}

// moved renders the whole installation as an overlay puts it into another namespace, under another name.
func moved(t *testing.T, namespace, installation string) objects {
	t.Helper()
	return overlay(t, "default", []string{"wiring"}, namespace, installation)
}

func overlay(t *testing.T, resource string, transformers []string, namespace, installation string) objects {
	t.Helper()
	return objects(rendered.Overlay(t, kustomize, folder(t, ""),
		rendered.Overlaid{Resource: resource, Transformers: transformers, Namespace: namespace, Installation: installation}))
}

// of returns the objects of a kind.
func (o objects) of(kinds ...string) objects { return objects(rendered.Objects(o).Of(kinds...)) }

// rights are the roles and their bindings.
func (o objects) rights() objects {
	return o.of("Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")
}

// into decodes the one object of a kind and name.
func into[T any](t *testing.T, o objects, kind, name string) *T {
	t.Helper()
	return rendered.Into[T](t, rendered.Objects(o), kind, name)
}

func decode[T any](t *testing.T, u *unstructured.Unstructured) *T {
	t.Helper()
	return rendered.Decode[T](t, u)
}

// applyAll applies objects as an administrator, warnings being errors.
func applyAll(t *testing.T, all objects) {
	t.Helper()
	rendered.Apply(t, servers.Config(), rendered.Objects(all))
}

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
