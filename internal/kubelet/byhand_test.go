package kubelet

import (
	"context"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"
)

// drive does something to a pod. What it is given is the pod as it was read last.
type drive func(w *world, k *Kubelet, pod *corev1.Pod)

func testByHand(t *testing.T, client kubernetes.Interface) {
	t.Helper()
	const creating = "MODIFIED, Pending, base: ContainerCreating"
	for _, tt := range []struct {
		name string
		from []drive             // how the pod gets to where the case begins
		pod  func(p *corev1.Pod) // how the pod differs
		do   drive
		want []string // what a watch sees of do
	}{
		{
			name: "a pod that succeeds has its containers terminated before its phase says so",
			from: []drive{bind},
			do:   all(create, start, by((*Kubelet).Succeed)),
			want: []string{
				creating,
				"MODIFIED, Running, base: running",
				"MODIFIED, Running, base: Completed 0",
				"MODIFIED, Succeeded, base: Completed 0",
			},
		},
		{
			name: "a pod that fails",
			from: []drive{bind, create, start},
			do:   by((*Kubelet).Fail),
			want: []string{"MODIFIED, Running, base: Error 1", "MODIFIED, Failed, base: Error 1"},
		},
		{
			name: "a pod that uses up its memory",
			from: []drive{bind, create, start},
			do:   by((*Kubelet).OOMKill),
			want: []string{"MODIFIED, Running, base: OOMKilled 137", "MODIFIED, Failed, base: OOMKilled 137"},
		},
		{
			name: "a command that cannot be run",
			from: []drive{bind, create},
			do:   by((*Kubelet).StartError),
			want: []string{"MODIFIED, Pending, base: StartError 128", "MODIFIED, Failed, base: StartError 128"},
		},
		{
			name: "an init container that fails leaves the main one waiting for ever",
			from: []drive{bind, create},
			pod:  withInit,
			do: func(w *world, k *Kubelet, pod *corev1.Pod) {
				_, err := k.FailInit(w.Context(), pod, 2, "")
				require.NoError(w, err)
			},
			want: []string{
				"MODIFIED, Pending, init: Error 2, base: PodInitializing",
				"MODIFIED, Failed, init: Error 2, base: PodInitializing",
			},
		},
		{
			name: "a native sidecar is killed in a pod that succeeds",
			from: []drive{bind},
			pod:  withSidecar,
			do:   all(create, start, by((*Kubelet).Succeed)),
			want: []string{
				"MODIFIED, Pending, proxy: PodInitializing, base: PodInitializing",
				"MODIFIED, Running, proxy: running, base: running",
				"MODIFIED, Running, proxy: Error 143, base: Completed 0",
				"MODIFIED, Succeeded, proxy: Error 143, base: Completed 0",
			},
		},
		{
			name: "a deletion while containers are being made",
			from: []drive{bind, create},
			do:   all(remove, terminate143),
			want: []string{
				"MODIFIED, Pending, deleting in 30s, base: ContainerCreating",
				"MODIFIED, Pending, deleting in 30s, base: ContainerCreating",
				"MODIFIED, Failed, deleting in 30s, base: ContainerStatusUnknown 137",
				"MODIFIED, Failed, deleting in 0s, base: ContainerStatusUnknown 137",
			},
		},
		{
			name: "a forced deletion while containers are being made",
			from: []drive{bind, create},
			do:   all(removeNow, terminate143),
			want: []string{
				"MODIFIED, Pending, deleting in 0s, base: ContainerCreating",
				"MODIFIED, Pending, deleting in 0s, base: ContainerCreating",
				"MODIFIED, Failed, deleting in 0s, base: ContainerStatusUnknown 137",
			},
		},
		{
			name: "a deletion before the kubelet has written anything",
			from: []drive{bind},
			do:   all(remove, terminate143),
			want: []string{
				"MODIFIED, Pending, deleting in 30s",
				"MODIFIED, Pending, deleting in 30s",
				"MODIFIED, Failed, deleting in 30s, base: ContainerStatusUnknown 137",
				"MODIFIED, Failed, deleting in 0s, base: ContainerStatusUnknown 137",
			},
		},
		{
			name: "a deletion while init containers are being made leaves the main one waiting",
			from: []drive{bind, create},
			pod:  withInit,
			do:   all(remove, terminate143),
			want: []string{
				"MODIFIED, Pending, deleting in 30s, init: PodInitializing, base: PodInitializing",
				"MODIFIED, Pending, deleting in 30s, init: PodInitializing, base: PodInitializing",
				"MODIFIED, Failed, deleting in 30s, init: PodInitializing, base: PodInitializing",
				"MODIFIED, Failed, deleting in 0s, init: PodInitializing, base: PodInitializing",
			},
		},
		{
			name: "a deletion while running",
			from: []drive{bind, create, start},
			do:   all(remove, terminate143),
			want: []string{
				"MODIFIED, Running, deleting in 30s, base: running",
				"MODIFIED, Running, deleting in 30s, base: running",
				"MODIFIED, Failed, deleting in 30s, base: Error 143",
				"MODIFIED, Failed, deleting in 0s, base: Error 143",
			},
		},
		{
			name: "a deletion while running of a process that ends well on SIGTERM",
			from: []drive{bind, create, start},
			do: all(remove, func(w *world, k *Kubelet, pod *corev1.Pod) {
				require.NoError(w, k.Terminate(w.Context(), pod, 0))
			}),
			want: []string{
				"MODIFIED, Running, deleting in 30s, base: running",
				"MODIFIED, Running, deleting in 30s, base: running",
				"MODIFIED, Succeeded, deleting in 30s, base: Completed 0",
				"MODIFIED, Succeeded, deleting in 0s, base: Completed 0",
			},
		},
		{
			name: "a deletion of a pod that has ended",
			from: []drive{bind, create, start, by((*Kubelet).Fail)},
			do:   all(remove, terminate143),
			want: []string{"MODIFIED, Failed, deleting in 0s, base: Error 1"},
		},
		{
			name: "a deletion while unscheduled",
			do:   all(remove, collectGarbage),
			want: []string{"MODIFIED, Pending, deleting in 0s", "MODIFIED, Failed, deleting in 0s"},
		},
		{
			name: "an eviction while containers are being made is told before the deletion",
			from: []drive{bind, create},
			do:   all(evict, terminate143),
			want: []string{
				"MODIFIED, Pending, disrupted True EvictionByEvictionAPI, base: ContainerCreating",
				"MODIFIED, Pending, deleting in 30s, disrupted True EvictionByEvictionAPI, base: ContainerCreating",
				"MODIFIED, Pending, deleting in 30s, disrupted True EvictionByEvictionAPI, base: ContainerCreating",
				"MODIFIED, Failed, deleting in 30s, disrupted True EvictionByEvictionAPI, base: ContainerStatusUnknown 137",
				"MODIFIED, Failed, deleting in 0s, disrupted True EvictionByEvictionAPI, base: ContainerStatusUnknown 137",
			},
		},
		{
			name: "a preemption while running",
			from: []drive{bind, create, start},
			do: func(w *world, k *Kubelet, pod *corev1.Pod) {
				require.NoError(w, k.Preempt(w.Context(), pod))
			},
			want: []string{
				"MODIFIED, Running, disrupted True PreemptionByScheduler, base: running",
				"MODIFIED, Running, deleting in 30s, disrupted True PreemptionByScheduler, base: running",
			},
		},
		{
			name: "a taint that empties the node",
			from: []drive{bind, create},
			do: func(w *world, k *Kubelet, pod *corev1.Pod) {
				require.NoError(w, k.EvictByTaint(w.Context(), pod))
			},
			want: []string{
				"MODIFIED, Pending, disrupted True DeletionByTaintManager, base: ContainerCreating",
				"MODIFIED, Pending, deleting in 30s, disrupted True DeletionByTaintManager, base: ContainerCreating",
			},
		},
		{
			name: "a node under pressure",
			from: []drive{bind, create, start},
			do: func(w *world, k *Kubelet, pod *corev1.Pod) {
				_, err := k.NodePressure(w.Context(), pod, "The node was low on resource: memory.")
				require.NoError(w, err)
			},
			want: []string{"MODIFIED, Failed, (Evicted), disrupted True TerminationByKubelet, base: Error 137"},
		},
		{
			name: "a node that shuts down while containers are being made",
			from: []drive{bind, create},
			do:   by((*Kubelet).NodeShutdown),
			want: []string{"MODIFIED, Failed, (Terminated), disrupted True TerminationByKubelet, base: ContainerStatusUnknown 137"},
		},
		{
			name: "a node that is gone",
			from: []drive{bind, create, start},
			do: func(w *world, k *Kubelet, pod *corev1.Pod) {
				require.NoError(w, k.NodeLost(w.Context(), pod))
			},
			want: []string{
				"MODIFIED, Failed, disrupted True DeletionByPodGC, base: running",
				"MODIFIED, Failed, deleting in 0s, disrupted True DeletionByPodGC, base: running",
			},
		},
		{
			name: "a disruption that comes to nothing",
			from: []drive{bind, create},
			do: func(w *world, k *Kubelet, pod *corev1.Pod) {
				_, err := k.Disrupt(w.Context(), pod, "EvictionByEvictionAPI", "Eviction API: evicting")
				require.NoError(w, err)
				_, err = k.Undisrupt(w.Context(), pod)
				require.NoError(w, err)
			},
			want: []string{
				"MODIFIED, Pending, disrupted True EvictionByEvictionAPI, base: ContainerCreating",
				"MODIFIED, Pending, disrupted False , base: ContainerCreating",
			},
		},
		{
			name: "a pod that the kubelet does not admit has neither container statuses nor conditions",
			from: []drive{bind},
			do: func(w *world, k *Kubelet, pod *corev1.Pod) {
				pod, err := k.Reject(w.Context(), pod, "OutOfcpu", "Node didn't have enough resource: cpu")
				require.NoError(w, err)
				assert.Empty(w, pod.Status.Conditions)
				assert.Equal(w, "Pod was rejected: Node didn't have enough resource: cpu", pod.Status.Message)
			},
			want: []string{"MODIFIED, Failed, (OutOfcpu)"},
		},
		{
			name: "an image that cannot be pulled, and the cause is gone once the pod is deleted",
			from: []drive{bind, create},
			do:   all(failPull, failPull, remove, terminate143),
			want: []string{
				"MODIFIED, Pending, base: ErrImagePull",
				"MODIFIED, Pending, base: ImagePullBackOff",
				"MODIFIED, Pending, base: ErrImagePull",
				"MODIFIED, Pending, base: ImagePullBackOff",
				"MODIFIED, Pending, deleting in 30s, base: ImagePullBackOff",
				"MODIFIED, Pending, deleting in 30s, base: ContainerCreating",
				"MODIFIED, Failed, deleting in 30s, base: ContainerStatusUnknown 137",
				"MODIFIED, Failed, deleting in 0s, base: ContainerStatusUnknown 137",
			},
		},
		{
			name: "a deadline that has passed",
			from: []drive{bind, create, start},
			do: func(w *world, k *Kubelet, pod *corev1.Pod) {
				_, err := k.FailWith(w.Context(), pod, "DeadlineExceeded", "Pod was active on the node longer than the specified deadline")
				require.NoError(w, err)
			},
			want: []string{"MODIFIED, Failed, (DeadlineExceeded), base: Error 143"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, client)
			k := New(client, Options{})
			pod := w.pod("task", tt.pod)
			for _, do := range tt.from {
				do(w, k, pod)
			}
			begin := w.read(pod)
			tt.do(w, k, begin)
			assert.Equal(t, tt.want, w.seen(begin))
		})
	}

	t.Run("a pod goes with its finalizer, as it was last", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, client)
		k := New(client, Options{})
		pod := w.pod("task", nil)
		all(bind, create, remove, terminate143)(w, k, pod)
		last := w.read(pod)
		events := w.watch(last)
		w.release(pod)
		event := <-events.ResultChan()
		assert.Equal(t, "DELETED, Failed, deleting in 0s, base: ContainerStatusUnknown 137",
			describe(event.Type, event.Object.(*corev1.Pod)))
	})
	t.Run("a binding that was made before is no error, another one is", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, client)
		k := New(client, Options{})
		pod := w.pod("task", nil)
		bind(w, k, pod)
		bind(w, k, pod)
		_, err := k.Bind(t.Context(), pod, "node-b")
		assert.ErrorContains(t, err, "binding pod "+w.namespace+"/task to node node-b")
	})
	t.Run("another pod of the same name is left alone", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, client)
		k := New(client, Options{})
		old := w.pod("task", nil)
		events := w.watch(old)
		w.release(old)
		w.delete(old, ptr.To[int64](0))
		for event := range events.ResultChan() {
			if event.Type == watch.Deleted {
				break
			}
		}
		pod := w.pod("task", nil)

		_, err := k.Create(t.Context(), old)

		assert.ErrorContains(t, err, "its UID is "+string(pod.UID)+", not "+string(old.UID))
		assert.Empty(t, w.read(pod).Status.ContainerStatuses)
	})
}

func all(drives ...drive) drive {
	return func(w *world, k *Kubelet, pod *corev1.Pod) {
		for _, do := range drives {
			do(w, k, pod)
		}
	}
}

func bind(w *world, k *Kubelet, pod *corev1.Pod) {
	_, err := k.Bind(w.Context(), pod, "node-a")
	require.NoError(w, err)
}

// by is a method that drives a pod.
func by(method func(*Kubelet, context.Context, *corev1.Pod) (*corev1.Pod, error)) drive {
	return func(w *world, k *Kubelet, pod *corev1.Pod) {
		_, err := method(k, w.Context(), pod)
		require.NoError(w, err)
	}
}

func create(w *world, k *Kubelet, pod *corev1.Pod) { by((*Kubelet).Create)(w, k, pod) }

func start(w *world, k *Kubelet, pod *corev1.Pod) { by((*Kubelet).Start)(w, k, pod) }

func failPull(w *world, k *Kubelet, pod *corev1.Pod) {
	_, err := k.ImagePull(w.Context(), pod, "503 Service Unavailable")
	require.NoError(w, err)
}

func evict(w *world, k *Kubelet, pod *corev1.Pod) {
	require.NoError(w, k.Evict(w.Context(), pod))
}

func remove(w *world, _ *Kubelet, pod *corev1.Pod) { w.delete(pod, nil) }

func removeNow(w *world, _ *Kubelet, pod *corev1.Pod) { w.delete(pod, ptr.To[int64](0)) }

func terminate143(w *world, k *Kubelet, pod *corev1.Pod) {
	require.NoError(w, k.Terminate(w.Context(), pod, 143))
}

func collectGarbage(w *world, k *Kubelet, pod *corev1.Pod) {
	require.NoError(w, k.CollectGarbage(w.Context(), pod))
}

func withInit(pod *corev1.Pod) {
	pod.Spec.InitContainers = []corev1.Container{{Name: "init", Image: "apache/airflow"}}
}

func withSidecar(pod *corev1.Pod) {
	pod.Spec.InitContainers = []corev1.Container{{
		Name: "proxy", Image: "proxy", RestartPolicy: ptr.To(corev1.ContainerRestartPolicyAlways),
	}}
}
