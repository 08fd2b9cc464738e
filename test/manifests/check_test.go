package manifests_test

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/airflow-requeue/airflow-requeue/internal/cluster"
	"github.com/airflow-requeue/airflow-requeue/internal/world"
	"github.com/airflow-requeue/airflow-requeue/pkg/preflight"
	"github.com/airflow-requeue/airflow-requeue/pkg/watcher"
)

// TestTheInitStepSaysWhatTheWatcherLacks plays a kubelet that meets an installation in the order in which it is made.
func TestTheInitStepSaysWhatTheWatcherLacks(t *testing.T) {
	w := world.New(t, servers.Config(), filepath.Join("..", "..", "pkg", "tidb", "testdata", "3.3.2-sqlite.sql"))
	all := moved(t, w.Namespace, w.Namespace)
	d := into[appsv1.Deployment](t, all, "Deployment", "airflow-requeue-watcher")
	mounted := secrets(t, w)
	step := func(t *testing.T) (said string, err error) {
		t.Helper()
		c := newContainer(t, w.Namespace, d.Spec.Template, d.Spec.Template.Spec.InitContainers[0], mounted)
		c.start(t, built["watcher"])
		err = <-c.exited
		return strings.Join(strings.Fields(c.output.String()), " "), err
	}

	url := mounted["airflow-metadata"]["connection"]
	mounted["airflow-metadata"]["connection"] = "postgresql://airflow:s3cret@127.0.0.1:1/airflow"
	t.Run("without rights and without a database the watcher does not start", func(t *testing.T) {
		said, err := step(t)
		require.Error(t, err)
		assert.Contains(t, said, "FAIL database opening the metadata database (PostgreSQL): nothing listens at the address of the connection URL")
		assert.Contains(t, said, "FAIL rights missing: get,list,watch,create,patch,delete pods -n "+w.Namespace)
		assert.Contains(t, said, "FAIL rights grant them to system:serviceaccount:"+w.Namespace+":airflow-requeue-watcher, as manifests/base/watcher-rights.yaml does")
		assert.Contains(t, said, "airflow-requeue-watcher: 2 of 11 checks failed: database, rights")
		assert.Contains(t, said, "warn leader can't be told without the rights that are missing")
		assert.NotContains(t, said, "s3cret")
	})
	mounted["airflow-metadata"]["connection"] = url
	granted(t, w.Namespace, all.rights())
	t.Run("it starts before the webhook is registered, and before there is a leader", func(t *testing.T) {
		said, err := step(t)
		require.NoError(t, err, said)
		assert.Contains(t, said, "ok rights all that a watcher needs")
		assert.Contains(t, said, "warn webhook not registered: there is no MutatingWebhookConfiguration "+w.Namespace)
		assert.Contains(t, said, "warn leader none")
	})
	applyAll(t, all.of("MutatingWebhookConfiguration"))
	t.Run("it starts before the webhook has a CA", func(t *testing.T) {
		said, err := step(t)
		require.NoError(t, err, said)
		assert.Contains(t, said, "ok webhook registered for namespace "+w.Namespace)
		assert.Contains(t, said, "warn webhook's CA MutatingWebhookConfiguration "+w.Namespace+" has no caBundle yet")
	})
}

func TestTheInitStepLooksAtWhatTheWatcherUses(t *testing.T) {
	spec := into[appsv1.Deployment](t, build(t, folder(t, "base")), "Deployment", "airflow-requeue-watcher").Spec.Template.Spec
	require.Len(t, spec.InitContainers, 1)
	check, program := spec.InitContainers[0], spec.Containers[0]
	require.Equal(t, []string{"check", "--init"}, check.Args[:2])
	assert.Subset(t, program.Args, check.Args[2:])
	assert.Equal(t, program.Image, check.Image)
	assert.Equal(t, program.Env, check.Env)
	assert.Equal(t, program.VolumeMounts, check.VolumeMounts)
}

// TestACheckByExecLooksAtWhatTheWatcherUses is of kubectl exec, which gives a check the container's environment alone.
func TestACheckByExecLooksAtWhatTheWatcherUses(t *testing.T) {
	for name, d := range map[string]*appsv1.Deployment{
		"elsewhere": into[appsv1.Deployment](t, moved(t, "data", "data-requeue"), "Deployment", "airflow-requeue-watcher"),
		"sharded":   into[appsv1.Deployment](t, build(t, folder(t, "shards")), "Deployment", "airflow-requeue-watcher-1"),
	} {
		t.Run(name, func(t *testing.T) {
			byArguments, byEnvironment := cluster.Checks(t, servers, built["watcher"], d)
			assert.Equal(t, byArguments, byEnvironment)
			assert.Contains(t, byEnvironment, "key rotation")
			assert.Contains(t, byEnvironment, map[string]string{"elsewhere": "data-requeue", "sharded": "team-a"}[name])
		})
	}
}

func TestTheCheckAsksForTheRightsThatTheManifestsGrant(t *testing.T) {
	var asked, given []string
	for _, right := range preflight.Rights(preflight.Options{Namespaces: []string{"airflow"}, KeysSecret: "airflow-requeue-signing-keys",
		Lease: watcher.LeaseOptions{Namespace: "airflow", Name: "airflow-requeue"}}) {
		asked = append(asked, right.String())
	}
	for _, u := range build(t, folder(t, "base")).of("Role", "ClusterRole") {
		if u.GetLabels()["app.kubernetes.io/component"] != "watcher" {
			continue
		}
		for _, rule := range decode[rbacv1.ClusterRole](t, u).Rules {
			resource, subresource, _ := strings.Cut(rule.Resources[0], "/")
			right := preflight.Right{Verbs: rule.Verbs, Group: rule.APIGroups[0], Resource: resource, Subresource: subresource,
				Namespace: u.GetNamespace(), Name: strings.Join(rule.ResourceNames, "")}
			given = append(given, right.String())
		}
	}
	own := "get mutatingwebhookconfigurations.admissionregistration.k8s.io/airflow-requeue" // which nothing but a check needs
	assert.Contains(t, given, own)
	assert.ElementsMatch(t, asked, slices.DeleteFunc(given, func(r string) bool { return r == own }))
}
