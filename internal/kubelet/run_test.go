package kubelet

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	testclock "k8s.io/utils/clock/testing"

	"github.com/airflow-requeue/airflow-requeue/internal/controlplane"
)

// patience is how long a test waits for what is bound to come.
const patience = 30 * time.Second

func testRun(t *testing.T, client kubernetes.Interface) {
	t.Helper()
	never := make(chan struct{})

	t.Run("pods run to success by default", func(t *testing.T) {
		w := newWorld(t, client)
		w.run(Options{})
		var pods []*corev1.Pod
		for i := range 20 {
			pods = append(pods, w.pod(fmt.Sprintf("task-%d", i), nil))
		}
		for _, pod := range pods {
			ended := w.await(pod, "Succeeded", inPhase(corev1.PodSucceeded))
			assert.Equal(t, defaultNode, ended.Spec.NodeName)
			assert.Equal(t, []string{
				"MODIFIED, Pending",
				"MODIFIED, Pending, base: ContainerCreating",
				"MODIFIED, Running, base: running",
				"MODIFIED, Running, base: Completed 0",
				"MODIFIED, Succeeded, base: Completed 0",
			}, w.seen(pod))
		}
	})
	t.Run("each pod has its own script", func(t *testing.T) {
		w := newWorld(t, client)
		w.run(Options{Script: func(pod *corev1.Pod) Script {
			if pod.Name == "second" {
				return Default(pod)
			}
			return Script{Node: "node-b", Steps: []Step{Reject("NodeAffinity", "labels changed")}}
		}})
		first, second := w.pod("first", nil), w.pod("second", nil)
		assert.Equal(t, "node-b", w.await(first, "rejected", inPhase(corev1.PodFailed)).Spec.NodeName)
		w.await(second, "Succeeded", inPhase(corev1.PodSucceeded))
	})
	t.Run("a pod with a scheduling gate waits until the gate is off", func(t *testing.T) {
		w := newWorld(t, client)
		w.run(Options{})
		gated := w.pod("gated", func(pod *corev1.Pod) {
			pod.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "kubelet.test/gate"}}
		})
		open := w.pod("open", nil)
		w.await(open, "Succeeded", inPhase(corev1.PodSucceeded)) // and the gated one was seen before
		assert.Empty(t, w.read(gated).Spec.NodeName)
		w.patch(gated, `{"spec":{"schedulingGates":null}}`)
		w.await(gated, "Succeeded", inPhase(corev1.PodSucceeded))
	})
	t.Run("a deletion ends the script, and is finished as a kubelet does it", func(t *testing.T) {
		w := newWorld(t, client)
		w.run(Options{Script: func(*corev1.Pod) Script {
			return Script{Steps: []Step{Create(), Start(), Until(never), Exit(0, "")}}
		}})
		pod := w.pod("task", nil)
		running := w.await(pod, "Running", inPhase(corev1.PodRunning))
		w.delete(pod, nil)
		w.await(pod, "removed but for its finalizer", removed)
		assert.Equal(t, []string{
			"MODIFIED, Running, deleting in 30s, base: running",
			"MODIFIED, Running, deleting in 30s, base: running",
			"MODIFIED, Failed, deleting in 30s, base: Error 143",
			"MODIFIED, Failed, deleting in 0s, base: Error 143",
		}, w.seen(running))
		w.release(pod)
		w.await(pod, "gone", func(kind watch.EventType, _ *corev1.Pod) bool { return kind == watch.Deleted })
	})
	t.Run("a script's process may end well on SIGTERM", func(t *testing.T) {
		w := newWorld(t, client)
		w.run(Options{Script: func(*corev1.Pod) Script {
			return Script{Steps: []Step{Create(), Start()}, Signal: ExitWell}
		}})
		pod := w.pod("task", nil)
		w.await(pod, "Running", inPhase(corev1.PodRunning))
		w.delete(pod, nil)
		assert.Equal(t, corev1.PodSucceeded, w.await(pod, "removed but for its finalizer", removed).Status.Phase)
	})
	t.Run("a container may take its time to answer SIGTERM", func(t *testing.T) {
		w := newWorld(t, client)
		played := testclock.NewFakeClock(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
		w.run(Options{Clock: played, Script: func(*corev1.Pod) Script {
			return Script{Steps: []Step{Create(), Start()}, Linger: time.Second}
		}})
		pod := w.pod("task", nil)
		running := w.await(pod, "Running", inPhase(corev1.PodRunning))
		w.delete(pod, nil)
		require.Eventually(t, played.HasWaiters, patience, time.Millisecond)
		assert.Equal(t, []string{
			"MODIFIED, Running, deleting in 30s, base: running",
			"MODIFIED, Running, deleting in 30s, base: running",
		}, w.seen(running))
		played.Step(time.Second)
		w.await(pod, "removed but for its finalizer", removed)
	})
	t.Run("a silent node finishes no deletion", func(t *testing.T) {
		w := newWorld(t, client)
		w.run(Options{Script: func(pod *corev1.Pod) Script {
			return Script{Steps: []Step{Create(), Start()}, Silent: pod.Name == "silent"}
		}})
		silent, other := w.pod("silent", nil), w.pod("other", nil)
		for _, pod := range []*corev1.Pod{silent, other} {
			w.await(pod, "Running", inPhase(corev1.PodRunning))
			w.delete(pod, nil)
		}
		w.await(other, "removed but for its finalizer", removed) // and the deletion of the silent one was seen before
		assert.Equal(t, "MODIFIED, Running, deleting in 30s, base: running", describe(watch.Modified, w.read(silent)))
	})
	for _, tt := range []struct {
		name string
		step Step
		want string
	}{
		{"a configuration that is missing", Waiting("CreateContainerConfigError", "secret not found"),
			"MODIFIED, Pending, base: CreateContainerConfigError"},
		{"a virtual node that fails", FailWith("ProviderFailed", "no capacity"),
			"MODIFIED, Failed, (ProviderFailed), base: ContainerStatusUnknown 137"},
		{"a node under pressure", NodePressure("low on memory"),
			"MODIFIED, Failed, (Evicted), disrupted True TerminationByKubelet, base: ContainerStatusUnknown 137"},
		{"a node that shuts down", NodeShutdown(),
			"MODIFIED, Failed, (Terminated), disrupted True TerminationByKubelet, base: ContainerStatusUnknown 137"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, client)
			w.run(Options{Script: func(*corev1.Pod) Script { return Script{Steps: []Step{Create(), tt.step}} }})
			w.await(w.pod("task", nil), tt.want, func(kind watch.EventType, pod *corev1.Pod) bool {
				return describe(kind, pod) == tt.want
			})
		})
	}
	t.Run("a script may evict its own pod", func(t *testing.T) {
		w := newWorld(t, client)
		w.run(Options{Script: func(*corev1.Pod) Script { return Script{Steps: []Step{Create(), Evict()}} }})
		pod := w.pod("task", nil)
		removed := w.await(pod, "removed but for its finalizer", removed)
		assert.Equal(t, "MODIFIED, Failed, deleting in 0s, disrupted True EvictionByEvictionAPI, base: ContainerStatusUnknown 137",
			describe(watch.Modified, removed))
	})
	t.Run("a pod that fits no node says so, and is collected when it is deleted", func(t *testing.T) {
		w := newWorld(t, client)
		w.run(Options{Script: func(*corev1.Pod) Script { return Script{Unschedulable: "0/3 nodes are available."} }})
		pod := w.pod("task", nil)
		w.await(pod, "unschedulable", unschedulable)
		w.delete(pod, nil)
		failed := w.await(pod, "Failed", inPhase(corev1.PodFailed))
		assert.Equal(t, "MODIFIED, Failed, deleting in 0s", describe(watch.Modified, failed))
	})
	t.Run("without garbage collection an unscheduled pod stays Pending when it is deleted", func(t *testing.T) {
		w := newWorld(t, client)
		finished := make(chan struct{})
		_, stop := w.run(Options{GarbageCollection: -1, Script: func(pod *corev1.Pod) Script {
			if pod.Name == "second" {
				return Script{Steps: []Step{func(_ context.Context, _ *Kubelet, pod *corev1.Pod) (*corev1.Pod, error) {
					close(finished)
					return pod, nil
				}}}
			}
			return Script{Unschedulable: "0/3 nodes are available."}
		}})
		pod := w.pod("first", nil)
		w.await(pod, "unschedulable", unschedulable)
		w.delete(pod, nil)
		w.pod("second", nil)
		<-finished // the deletion of the first was seen before
		stop()
		assert.Equal(t, corev1.PodPending, w.read(pod).Status.Phase)
	})
	t.Run("an image that cannot be pulled for a while", func(t *testing.T) {
		w := newWorld(t, client)
		played := testclock.NewFakeClock(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
		pulling := make(chan struct{})
		w.run(Options{Clock: played, Script: func(*corev1.Pod) Script {
			return Script{Steps: []Step{
				Create(), ImagePull("503 Service Unavailable", 1, 0), Until(pulling), Wait(time.Minute), Start(), Exit(0, ""),
			}}
		}})
		pod := w.pod("task", nil)
		w.await(pod, "waiting", func(_ watch.EventType, pod *corev1.Pod) bool {
			return describe("", pod) == ", Pending, base: ImagePullBackOff"
		})
		close(pulling)
		require.Eventually(t, played.HasWaiters, patience, time.Millisecond)
		assert.Equal(t, corev1.PodPending, w.read(pod).Status.Phase)
		played.Step(time.Minute)
		ended := w.await(pod, "Succeeded", inPhase(corev1.PodSucceeded))
		assert.Equal(t, played.Now(), ended.Status.ContainerStatuses[0].State.Terminated.StartedAt.UTC())
	})
	t.Run("a pod that is driven by hand is left alone, but for its deletion", func(t *testing.T) {
		w := newWorld(t, client)
		k := New(client, Options{})
		pod := w.pod("task", nil)
		all(bind, create)(w, k, pod)
		w.run(Options{})
		w.await(w.pod("other", nil), "Succeeded", inPhase(corev1.PodSucceeded))
		assert.Equal(t, corev1.PodPending, w.read(pod).Status.Phase)
		w.delete(pod, nil)
		w.await(pod, "removed but for its finalizer", removed)
	})
}

// run has a Kubelet run in the namespace until the test, or the returned function, ends it. The names of its nodes begin
// with the namespace's: nodes are the cluster's, not a namespace's.
func (w *world) run(options Options, nodes ...string) (k *Kubelet, stop func()) {
	w.Helper()
	options.Namespace = w.namespace
	options.Failed = func(err error) { w.Errorf("running: %v", err) }
	k = New(w.client, options)
	for _, name := range nodes {
		require.NoError(w, k.AddNode(w.Context(), w.namespace+"-"+name, nil))
	}
	ctx, cancel := context.WithCancel(w.Context())
	done := make(chan error, 1)
	go func() { done <- k.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		require.NoError(w, <-done)
	})
	w.Cleanup(stop)
	return k, stop
}

func inPhase(phase corev1.PodPhase) func(watch.EventType, *corev1.Pod) bool {
	return func(_ watch.EventType, pod *corev1.Pod) bool { return pod.Status.Phase == phase }
}

// removed is a pod that its kubelet has removed, and that only its finalizer keeps.
func removed(_ watch.EventType, pod *corev1.Pod) bool {
	return pod.DeletionGracePeriodSeconds != nil && *pod.DeletionGracePeriodSeconds == 0 && isEnded(pod)
}

func unschedulable(_ watch.EventType, pod *corev1.Pod) bool {
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodScheduled && condition.Reason == corev1.PodReasonUnschedulable {
			return condition.Status == corev1.ConditionFalse
		}
	}
	return false
}

func testNodes(t *testing.T, client kubernetes.Interface) {
	t.Helper()
	stay := Options{Script: func(*corev1.Pod) Script { return Script{Steps: []Step{Create(), Start()}} }}

	t.Run("a drained node gives up its pods and gets no more", func(t *testing.T) {
		w := newWorld(t, client)
		k, _ := w.run(stay, "a", "b")
		first, second := w.pod("first", nil), w.pod("second", nil)
		on := map[string]*corev1.Pod{}
		for _, pod := range []*corev1.Pod{first, second} {
			running := w.await(pod, "Running", inPhase(corev1.PodRunning))
			on[running.Spec.NodeName] = running
		}
		require.Contains(t, on, w.namespace+"-a")
		require.Contains(t, on, w.namespace+"-b")

		require.NoError(t, k.Drain(t.Context(), w.namespace+"-a"))

		w.await(on[w.namespace+"-a"], "removed but for its finalizer", removed)
		assert.Nil(t, w.read(on[w.namespace+"-b"]).DeletionTimestamp)
		node, err := client.CoreV1().Nodes().Get(t.Context(), w.namespace+"-a", metav1.GetOptions{})
		require.NoError(t, err)
		assert.True(t, node.Spec.Unschedulable)
		for i := range 3 {
			pod := w.await(w.pod(fmt.Sprintf("later-%d", i), nil), "Running", inPhase(corev1.PodRunning))
			assert.Equal(t, w.namespace+"-b", pod.Spec.NodeName)
		}
	})
	t.Run("a pod without a node waits until there is one", func(t *testing.T) {
		w := newWorld(t, client)
		k, _ := w.run(stay, "a")
		require.NoError(t, k.Cordon(t.Context(), w.namespace+"-a"))
		pod := w.pod("task", nil)
		w.await(pod, "unschedulable", unschedulable)
		require.NoError(t, k.Uncordon(t.Context(), w.namespace+"-a"))
		w.await(pod, "Running", inPhase(corev1.PodRunning))
	})
	t.Run("a node is registered as ready, and goes when it is removed", func(t *testing.T) {
		w := newWorld(t, client)
		k := New(client, Options{})
		name := w.namespace + "-a"
		require.NoError(t, k.AddNode(t.Context(), name, map[string]string{"zone": "1"}))
		require.NoError(t, k.AddNode(t.Context(), name, nil), "a node that exists is fine")
		node, err := client.CoreV1().Nodes().Get(t.Context(), name, metav1.GetOptions{})
		require.NoError(t, err)
		assert.Equal(t, map[string]string{"zone": "1", corev1.LabelHostname: name}, node.Labels)
		assert.Equal(t, corev1.ConditionTrue, node.Status.Conditions[0].Status)
		require.NoError(t, k.RemoveNode(t.Context(), name))
		require.ErrorContains(t, k.Drain(t.Context(), name), "cordoning node "+name)
	})
}

// testOutage comes last: it stops the API server for all.
func testOutage(t *testing.T, client kubernetes.Interface, server *controlplane.ControlPlane) {
	t.Helper()
	w := newWorld(t, client)
	down := make(chan struct{})
	w.run(Options{Script: func(*corev1.Pod) Script {
		return Script{Steps: []Step{Create(), Until(down), Start(), Exit(0, "")}}
	}})
	pod := w.pod("task", nil)
	w.await(pod, "being made", func(_ watch.EventType, pod *corev1.Pod) bool { return len(pod.Status.ContainerStatuses) > 0 })
	require.NoError(t, server.StopAPIServer())
	close(down)
	require.NoError(t, server.StartAPIServer())
	require.EventuallyWithT(t, func(c *assert.CollectT) { // its versions are too old for a watch by now
		live, err := client.CoreV1().Pods(w.namespace).Get(t.Context(), pod.Name, metav1.GetOptions{})
		if assert.NoError(c, err) {
			assert.Equal(c, corev1.PodSucceeded, live.Status.Phase)
		}
	}, patience, 50*time.Millisecond)
}
