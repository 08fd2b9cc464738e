package chart_test

import (
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/airflow-requeue/airflow-requeue/internal/rendered"
	"github.com/airflow-requeue/airflow-requeue/internal/world"
)

// TestTheChartMakesWhatTheManifestsMake compares all objects, whole. What may differ is what asKustomize takes off, and that
// the Job which releases is a folder of its own in the one, and a hook in the other.
func TestTheChartMakesWhatTheManifestsMake(t *testing.T) {
	const all = "networkPolicies.enabled=true,priorityClass.create=true,monitoring.podMonitor.enabled=true"
	components := []string{"network-policies", "priority", "monitoring"}
	for name, test := range map[string]struct {
		values string
		made   rendered.Overlaid
	}{
		"self-signed, as it is":       {"", rendered.Overlaid{Resource: "self-signed"}},
		"by cert-manager":             {"certificates.mode=cert-manager", rendered.Overlaid{Resource: "default"}},
		"brought along":               {"certificates.mode=provided", rendered.Overlaid{Resource: "base"}},
		"self-signed, with all parts": {all, rendered.Overlaid{Resource: "self-signed", Components: components}},
		"for another Airflow": {all + ",priorityClass.name=airflow-requeue", rendered.Overlaid{Resource: "self-signed", Components: components,
			Transformers: []string{"wiring"}, Namespace: "data", Installation: "blue"}},
	} {
		t.Run(name, func(t *testing.T) {
			test.made.Namespace, test.made.Installation = or(test.made.Namespace, "airflow"), or(test.made.Installation, "airflow-requeue")
			manifests := rendered.Overlay(t, kustomize, folder(t), test.made)
			given := rendered.Template(t, helm, test.made.Installation, chart, "--namespace="+test.made.Namespace, "--set="+test.values)
			assert.Equal(t, byName(t, manifests), byName(t, asKustomize(given.But("Job"))))
		})
	}
	job := rendered.Overlay(t, kustomize, folder(t), rendered.Overlaid{Resource: "release", Namespace: "data", Installation: "blue"})
	hook := rendered.Template(t, helm, "blue", chart, "--namespace=data").Of("Job")
	require.Len(t, hook, 1)
	require.Equal(t, map[string]string{"helm.sh/hook": "pre-delete", "helm.sh/hook-delete-policy": "before-hook-creation,hook-succeeded"}, hook[0].GetAnnotations())
	hook[0].SetAnnotations(nil)
	assert.Equal(t, byName(t, job), byName(t, asKustomize(hook)))
}

// asKustomize takes off what is Helm's own.
func asKustomize(all rendered.Objects) rendered.Objects {
	for _, u := range all {
		labels := u.GetLabels()
		labels["app.kubernetes.io/managed-by"] = "kustomize"
		delete(labels, "helm.sh/chart")
		u.SetLabels(labels)
	}
	return all
}

// byName are objects by kind, namespace and name: in which order they are applied is a matter of each.
func byName(t *testing.T, all rendered.Objects) map[string]map[string]any {
	t.Helper()
	named := map[string]map[string]any{}
	for _, u := range all {
		name := u.GetKind() + " " + u.GetNamespace() + "/" + u.GetName()
		require.NotContains(t, named, name)
		named[name] = u.Object
	}
	return named
}

func folder(t *testing.T) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("..", "..", "manifests"))
	require.NoError(t, err)
	return path
}

func or(value, otherwise string) string {
	if value == "" {
		return otherwise
	}
	return value
}

func TestTheAPIServerTakesWhateverTheChartMakesWithStrictValidation(t *testing.T) {
	t.Parallel()
	w := world.Bare(t, servers.Config())
	for name, args := range map[string][]string{
		"as it is":         nil,
		"by cert-manager":  {"--set=certificates.mode=cert-manager"},
		"with all parts":   {"--set=networkPolicies.enabled=true,priorityClass.create=true,monitoring.podMonitor.enabled=true"},
		"with every value": {"--values=testdata/every-value.yaml"},
	} {
		t.Run(name, func(t *testing.T) {
			args := append(args, "--namespace="+w.Namespace, "--set=airflow.workerNamespaces={"+w.Namespace+",default}")
			all := rendered.Template(t, helm, "dry", chart, args...)
			require.NotEmpty(t, all)
			rendered.Apply(t, servers.Config(), all, metav1.DryRunAll)
		})
	}
}

func TestWhereWorkerPodsAreInSeveralNamespacesEachIsSelectedAndGranted(t *testing.T) {
	t.Parallel()
	all := rendered.Template(t, helm, "blue", chart, "--namespace=airflow", "--set=airflow.workerNamespaces={etl,ml}")
	want := map[string]any{"matchExpressions": []any{map[string]any{"key": "kubernetes.io/metadata.name", "operator": "In", "values": []any{"etl", "ml"}}}}
	for _, u := range all.Of("MutatingWebhookConfiguration", "ValidatingAdmissionPolicyBinding") {
		if u.GetName() == "blue" {
			assert.Equal(t, want, selector(t, u), u.GetKind())
		}
	}
	granted := map[string][]string{}
	for _, u := range all.Of("RoleBinding") {
		granted[u.GetName()] = append(granted[u.GetName()], u.GetNamespace())
		subjects, _, err := unstructured.NestedSlice(u.Object, "subjects")
		require.NoError(t, err)
		assert.Equal(t, "airflow", subjects[0].(map[string]any)["namespace"])
	}
	assert.Equal(t, map[string][]string{"airflow-requeue-watcher": {"airflow", "etl", "ml"}, "airflow-requeue-webhook": {"airflow", "etl", "ml"},
		"airflow-requeue-webhook-ca": {"airflow"}, "airflow-requeue-release": {"etl", "ml"}}, granted)
	for _, args := range arguments(t, all) {
		assert.Contains(t, args, "--namespace=etl")
		assert.Contains(t, args, "--namespace=ml")
		assert.NotContains(t, args, "--namespace=$(POD_NAMESPACE)")
	}
}

// selector is an object's of namespaces.
func selector(t *testing.T, u *unstructured.Unstructured) map[string]any {
	t.Helper()
	object := u.Object
	if webhooks, ok, _ := unstructured.NestedSlice(object, "webhooks"); ok {
		object = map[string]any{"spec": map[string]any{"matchResources": webhooks[0]}}
	}
	found, ok, err := unstructured.NestedMap(object, "spec", "matchResources", "namespaceSelector")
	require.NoError(t, err)
	require.True(t, ok)
	return found
}

// arguments are those of all containers, by name.
func arguments(t *testing.T, all rendered.Objects) map[string][]string {
	t.Helper()
	found := map[string][]string{}
	for _, u := range all.Of("Deployment", "Job") {
		for _, kind := range []string{"initContainers", "containers"} {
			containers, _, err := unstructured.NestedSlice(u.Object, "spec", "template", "spec", kind)
			require.NoError(t, err)
			for _, c := range containers {
				args, _, err := unstructured.NestedStringSlice(c.(map[string]any), "args")
				require.NoError(t, err)
				found[c.(map[string]any)["name"].(string)] = slices.Clip(args)
			}
		}
	}
	require.Len(t, found, 4)
	return found
}
