package chart_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/airflow-requeue/airflow-requeue/internal/rendered"
	"github.com/airflow-requeue/airflow-requeue/pkg/preflight"
	"github.com/airflow-requeue/airflow-requeue/pkg/watcher"
)

// TestTheWatcherIsGrantedWhatItAsksForWhereverWorkerPodsAre compares with what the watcher's init step looks for, and fails
// without: no more may be granted but what the rest of a check reads.
func TestTheWatcherIsGrantedWhatItAsksForWhereverWorkerPodsAre(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		values, keys string
		namespaces   []string
	}{
		"in its own namespace":              {"", "airflow-requeue-signing-keys", []string{"airflow"}},
		"in another":                        {"airflow.workerNamespaces={etl}", "airflow-requeue-signing-keys", []string{"etl"}},
		"in its own and another":            {"airflow.workerNamespaces={airflow,etl}", "airflow-requeue-signing-keys", []string{"airflow", "etl"}},
		"in another, with keys of the user": {"airflow.workerNamespaces={etl},signingKeys.secret=keys", "", []string{"etl"}},
	} {
		t.Run(name, func(t *testing.T) {
			want := []string{"get mutatingwebhookconfigurations.admissionregistration.k8s.io//blue in "}
			for _, right := range preflight.Rights(preflight.Options{Installation: "blue", Namespaces: test.namespaces, KeysSecret: test.keys,
				Lease: watcher.LeaseOptions{Namespace: "airflow", Name: "blue"}}) {
				resource := strings.TrimSuffix(right.Resource+"/"+right.Subresource, "/")
				for _, verb := range right.Verbs {
					want = append(want, grant(verb, resource, right.Group, right.Name, right.Namespace))
				}
			}
			all := rendered.Template(t, helm, "blue", chart, "--namespace=airflow", "--set="+test.values)
			assert.ElementsMatch(t, want, grants(t, all, "watcher"))
		})
	}
}

func grant(verb, resource, group, name, namespace string) string {
	return verb + " " + resource + "." + group + "//" + name + " in " + namespace
}

// grants are what the roles of a component grant.
func grants(t *testing.T, all rendered.Objects, component string) (found []string) {
	t.Helper()
	for _, u := range all.Of("Role", "ClusterRole") {
		if u.GetLabels()["app.kubernetes.io/component"] != component {
			continue
		}
		for _, rule := range rendered.Decode[rbacv1.ClusterRole](t, u).Rules {
			require.Len(t, rule.APIGroups, 1)
			require.Len(t, rule.Resources, 1)
			names := rule.ResourceNames
			if len(names) == 0 {
				names = []string{""}
			}
			for _, name := range names {
				for _, verb := range rule.Verbs {
					found = append(found, grant(verb, rule.Resources[0], rule.APIGroups[0], name, u.GetNamespace()))
				}
			}
		}
	}
	return found
}
