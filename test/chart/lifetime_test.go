package chart_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"

	"github.com/airflow-requeue/airflow-requeue/internal/programs"
	"github.com/airflow-requeue/airflow-requeue/internal/world"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// TestAnInstallationIsInstalledUpgradedWithPodsInFlightAndLeavesNothing is alone with the API server: all that is there is
// listed before and after.
func TestAnInstallationIsInstalledUpgradedWithPodsInFlightAndLeavesNothing(t *testing.T) {
	a := newAirflow(t)
	before := inventory(t)
	a.install("airflow-requeue", steady()...)
	for _, o := range outcomes() {
		pod := a.held("first-" + o.name)
		o.play(a, pod)
		o.until(a, pod)
	}

	flying := map[string]*corev1.Pod{}
	for _, o := range outcomes() {
		flying[o.name] = a.held("flying-" + o.name)
	}
	bundle := a.configuration().Webhooks[0].ClientConfig.CABundle
	require.NotEmpty(t, bundle)
	a.run(helm, append([]string{"upgrade", "airflow-requeue", chart, "--set=policy.maxRetries=2,watcher.podLabels.new=label,webhook.podLabels.new=label"}, steady()...)...)
	for _, o := range outcomes() { // while the pods roll
		o.play(a, flying[o.name])
	}
	for _, o := range outcomes() {
		o.until(a, flying[o.name])
	}
	a.run(kubectl, "rollout", "status", "deployment", "--selector=app.kubernetes.io/name=airflow-requeue", "--timeout=5m")
	assert.Equal(t, bundle, a.configuration().Webhooks[0].ClientConfig.CABundle, "an upgrade leaves what the webhook wrote")
	programs.UntilStamping(t, a.scheduler)

	assert.Empty(t, a.played.Log.About("forbidden"), "a right was missing")
	left := a.held("still-there")
	a.run(helm, "uninstall", "airflow-requeue", "--timeout=10m")
	a.untilReleased(left)
	a.begin(left) // as if nothing had been
	a.nothingOnPods()
	var different []string
	assert.Eventually(t, func() bool { different = changes(before, inventory(t)); return len(different) == 0 }, world.Patience, time.Second)
	assert.Empty(t, different)
}

// nothingOnPods says that no pod of Airflow's is tracked, held or kept, but that one was replaced.
func (a *airflow) nothingOnPods() {
	a.T.Helper()
	replaced := 0
	for name, pod := range a.Pods() {
		_, is := pod.Labels[requeue.LabelReplaced]
		assert.False(a.T, requeue.Tracked(pod), name)
		assert.Empty(a.T, pod.Finalizers, name)
		assert.Equal(a.T, is, requeue.Held(pod), "%s: the hold of a pod that was replaced is a tombstone", name)
		if is {
			replaced++
		}
	}
	assert.Positive(a.T, replaced, "they stay")
}

// configuration is the webhook's, of the release airflow-requeue.
func (a *airflow) configuration() *admissionregistrationv1.MutatingWebhookConfiguration {
	a.T.Helper()
	found, err := a.Client.AdmissionregistrationV1().MutatingWebhookConfigurations().Get(a.T.Context(), "airflow-requeue", metav1.GetOptions{})
	require.NoError(a.T, err)
	return found
}

// inventory is all that the API server has, but for Events, Airflow's pods, and what is not stored or deprecated.
func inventory(t *testing.T) []string {
	t.Helper()
	lookup, err := discovery.NewDiscoveryClientForConfig(servers.Config())
	require.NoError(t, err)
	client, err := dynamic.NewForConfig(servers.Config())
	require.NoError(t, err)
	lists, err := lookup.ServerPreferredResources()
	require.NoError(t, err)
	var all []string
	for _, list := range lists {
		group, err := schema.ParseGroupVersion(list.GroupVersion)
		require.NoError(t, err)
		for _, resource := range list.APIResources {
			if !slices.Contains(resource.Verbs, "list") || slices.Contains([]string{"events", "endpoints", "componentstatuses"}, resource.Name) {
				continue
			}
			found, err := client.Resource(group.WithResource(resource.Name)).List(t.Context(), metav1.ListOptions{LabelSelector: "!" + requeue.LabelKubernetesExecutor})
			require.NoError(t, err, resource.Name)
			for _, u := range found.Items {
				all = append(all, strings.Join([]string{group.Group, resource.Name, u.GetNamespace(), u.GetName()}, "/"))
			}
		}
	}
	slices.Sort(all)
	return all
}

// changes are what of the second is not in the first, and the other way round.
func changes(before, after []string) (different []string) {
	for _, one := range after {
		if !slices.Contains(before, one) {
			different = append(different, "+"+one)
		}
	}
	for _, one := range before {
		if !slices.Contains(after, one) {
			different = append(different, "-"+one)
		}
	}
	return different
}

func TestTwoInstallationsForTwoAirflowsSettleEachItsOwn(t *testing.T) {
	t.Parallel()
	blue, green := newAirflow(t), newAirflow(t)
	one := "--set=watcher.replicas=1,webhook.replicas=1"
	blue.install("blue", append(steady(), one)...)
	green.install("green", append(steady(), one)...)
	for _, o := range outcomes() {
		ours, theirs := blue.held(o.name), green.held(o.name)
		assert.Equal(t, "blue", ours.Labels[requeue.LabelTracked])
		assert.Equal(t, "green", theirs.Labels[requeue.LabelTracked])
		o.play(blue, ours)
		o.play(green, theirs)
		o.until(blue, ours)
		o.until(green, theirs)
	}
	assert.Empty(t, blue.played.Log.About(green.Namespace, "forbidden"))
	assert.Empty(t, green.played.Log.About(blue.Namespace, "forbidden"))

	ours, theirs := blue.held("left"), green.held("left")
	blue.run(kubectl, "scale", "--replicas=0", "deployment/airflow-requeue-watcher") // an uninstallation needs no watcher
	blue.run(helm, "uninstall", "blue", "--timeout=10m")
	blue.untilReleased(ours)
	assert.True(t, requeue.Held(green.Pods()[theirs.Name]))
	programs.UntilNotStamping(t, blue.scheduler)
	green.reject(theirs)
	green.untilReplaced(theirs)
	for _, o := range outcomes() {
		pod := green.held("later-" + o.name)
		o.play(green, pod)
		o.until(green, pod)
	}
}
