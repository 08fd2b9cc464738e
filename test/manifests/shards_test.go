package manifests_test

import (
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/airflow-requeue/airflow-requeue/internal/world"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

const shards = 2

// sharded are the namespaces of the example of shards, Airflow's own first.
func sharded() []string { return []string{"airflow", "team-a", "team-b"} }

func TestTheShardsOfTheExampleTakeThePlaceOfTheOnlyWatcher(t *testing.T) {
	plain, example := build(t, folder(t, "default")), build(t, folder(t, "shards"))
	only := into[appsv1.Deployment](t, plain, "Deployment", "airflow-requeue-watcher")
	budget := into[policyv1.PodDisruptionBudget](t, plain, "PodDisruptionBudget", "airflow-requeue-watcher")
	flags := []string{"--shards=2", "--namespace=team-a,team-b"}
	for shard := range shards {
		require.NotEmpty(t, requeue.InShard(sharded(), shard, shards), "nobody needs a watcher of shard %d", shard)
		want, label := only.DeepCopy(), fmt.Sprint(shard)
		want.Name += "-" + label
		for _, set := range []map[string]string{want.Labels, want.Spec.Selector.MatchLabels, want.Spec.Template.Labels,
			want.Spec.Template.Spec.TopologySpreadConstraints[0].LabelSelector.MatchLabels, want.Spec.Template.Spec.TopologySpreadConstraints[1].LabelSelector.MatchLabels} {
			set["airflow-requeue.dev/shard"] = label
		}
		pod := &want.Spec.Template.Spec
		pod.InitContainers[0].Args = append(pod.InitContainers[0].Args, flags...)
		pod.Containers[0].Args = slices.Concat(pod.Containers[0].Args, []string{"--shard=" + label}, flags)
		pod.Containers[0].Env = append(pod.Containers[0].Env, corev1.EnvVar{Name: "SHARDS", Value: "2"}, corev1.EnvVar{Name: "NAMESPACES", Value: "$(POD_NAMESPACE),team-a,team-b"})
		assert.Equal(t, want, into[appsv1.Deployment](t, example, "Deployment", want.Name))

		disruptions := budget.DeepCopy()
		disruptions.Name = want.Name
		disruptions.Labels["airflow-requeue.dev/shard"] = label
		disruptions.Spec.Selector = want.Spec.Selector
		assert.Equal(t, disruptions, into[policyv1.PodDisruptionBudget](t, example, "PodDisruptionBudget", want.Name))
	}
	webhook := into[appsv1.Deployment](t, plain, "Deployment", "airflow-requeue-webhook")
	webhook.Spec.Template.Spec.Containers[0].Args = append(webhook.Spec.Template.Spec.Containers[0].Args, flags...)
	assert.Equal(t, webhook, into[appsv1.Deployment](t, example, "Deployment", webhook.Name))

	more := map[string]int{"Deployment": shards - 1, "PodDisruptionBudget": shards - 1, "Lease": shards, "ClusterRole": 3, "RoleBinding": 3 * (len(sharded()) - 1)}
	for _, u := range plain {
		more[u.GetKind()] += 0
	}
	for kind, n := range more { // and nothing else
		assert.Len(t, example.of(kind), len(plain.of(kind))+n, kind)
	}
}

func TestTheShardsOfTheExampleHaveTheirRightsInEachNamespace(t *testing.T) {
	example := build(t, folder(t, "shards"))
	leases := []string{"airflow-requeue"} // of the only watcher, while that still runs
	for shard := range shards {
		leases = append(leases, requeue.LeaseOf("airflow-requeue", shard, shards))
	}
	for _, component := range []string{"watcher", "webhook", "release"} {
		account := "airflow-requeue-" + component
		var elsewhere []rbacv1.PolicyRule
		for _, rule := range into[rbacv1.Role](t, example, "Role", account).Rules {
			switch {
			case rule.Resources[0] == "secrets": // the installation's own
			case rule.APIGroups[0] != "coordination.k8s.io":
				elsewhere = append(elsewhere, rule)
			case len(rule.ResourceNames) > 0:
				assert.Equal(t, leases, rule.ResourceNames)
			}
		}
		role := into[rbacv1.ClusterRole](t, example, "ClusterRole", "airflow-requeue:"+component+"-of-pods")
		assert.Equal(t, elsewhere, role.Rules)
		bound := map[string][]rbacv1.Subject{}
		for _, u := range example.of("RoleBinding") {
			if binding := decode[rbacv1.RoleBinding](t, u); binding.RoleRef.Name == role.Name {
				bound[binding.Namespace] = binding.Subjects
			}
		}
		subjects := []rbacv1.Subject{{Kind: "ServiceAccount", Name: account, Namespace: "airflow"}}
		assert.Equal(t, map[string][]rbacv1.Subject{"team-a": subjects, "team-b": subjects}, bound)
	}
	assert.Equal(t, sharded(), into[rbacv1.ClusterRole](t, example, "ClusterRole", "airflow-requeue:watcher").Rules[0].ResourceNames)

	selected := &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{
		{Key: corev1.LabelMetadataName, Operator: metav1.LabelSelectorOpIn, Values: sharded()}}}
	configuration := into[admissionregistrationv1.MutatingWebhookConfiguration](t, example, "MutatingWebhookConfiguration", "airflow-requeue")
	assert.Equal(t, selected, configuration.Webhooks[0].NamespaceSelector)
	binding := into[admissionregistrationv1.ValidatingAdmissionPolicyBinding](t, example, "ValidatingAdmissionPolicyBinding", "airflow-requeue")
	assert.Equal(t, selected, binding.Spec.MatchResources.NamespaceSelector)
}

// TestTheProgramsOfTheExampleOfShardsRun plays the kubelet. What the check asks for is all that the watchers need, in each
// namespace and for each Lease.
func TestTheProgramsOfTheExampleOfShardsRun(t *testing.T) {
	secrets := secrets(t, world.New(t, servers.Config(), filepath.Join("..", "..", "pkg", "tidb", "testdata", "3.3.2-sqlite.sql")))
	for _, name := range sharded() {
		namespace(t, name, nil)
	}
	example := build(t, folder(t, "shards"))
	applyAll(t, example.rights())

	for _, name := range []string{"watcher-0", "watcher-1", "webhook"} {
		template := into[appsv1.Deployment](t, example, "Deployment", "airflow-requeue-"+name).Spec.Template
		program := template.Labels["app.kubernetes.io/component"]
		for _, spec := range template.Spec.InitContainers {
			// The API server's authorizer learns of the rights a moment later.
			var said string
			assert.Eventually(t, func() bool {
				c := newContainer(t, "airflow", template, spec, secrets)
				c.start(t, built[program])
				err := <-c.exited
				said = c.output.String()
				return err == nil
			}, world.Patience, time.Second)
			assert.Contains(t, said, "all that a watcher needs")
			assert.Contains(t, said, "for team-a")
			assert.Contains(t, said, "for airflow, team-b")
		}
		c := newContainer(t, "airflow", template, template.Spec.Containers[0], secrets)
		c.start(t, built[program])
		c.probe(t, c.spec.ReadinessProbe)
		require.NoError(t, c.stop(t, time.Duration(*template.Spec.TerminationGracePeriodSeconds)*time.Second), "%s", &c.output)
		assert.NotContains(t, c.output.String(), "forbidden")
	}

	job := into[batchv1.Job](t, build(t, folder(t, "shards/release")), "Job", "airflow-requeue-release")
	c := newContainer(t, "airflow", job.Spec.Template, job.Spec.Template.Spec.Containers[0], secrets)
	c.start(t, built["watcher"])
	require.NoError(t, <-c.exited, "%s", &c.output)
}
