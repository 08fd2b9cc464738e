package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"

	"github.com/airflow-requeue/airflow-requeue/internal/world"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// scenario is a pod's way to its outcome. play drives the pod up to its failure, and past what the watcher waits for;
// settled says when all is done; check looks at what is left.
type scenario struct {
	tuning  map[string]string
	play    func(w *world.World, pod *corev1.Pod)
	settled func(w *world.World, pod *corev1.Pod) bool
	check   func(t *testing.T, w *world.World, pod *corev1.Pod)
}

func gone(p *corev1.Pod) bool { return p == nil }

// evicted is a pod that is drained while its container is created.
func evicted(w *world.World, pod *corev1.Pod) {
	ctx := w.T.Context()
	pod, err := w.Kubelet.Bind(ctx, pod, "node-a")
	require.NoError(w.T, err)
	pod, err = w.Kubelet.Create(ctx, pod)
	require.NoError(w.T, err)
	require.NoError(w.T, w.Kubelet.Evict(ctx, pod))
	require.NoError(w.T, w.Kubelet.Terminate(ctx, pod, 137))
}

func replacedOnce(t *testing.T, w *world.World, pod *corev1.Pod) {
	pods := w.Pods()
	replacement := pods[pod.Name+"-r1"]
	require.NotNil(t, replacement)
	delete(pods, pod.Name)
	assert.Len(t, pods, 1, "one replacement")
	assert.True(t, requeue.Committed(replacement))
	assert.True(t, requeue.Held(replacement))
	assert.Equal(t, "1", replacement.Labels[requeue.LabelWorker])
	assert.Equal(t, "1", replacement.Annotations[requeue.AnnotationAttempt])
	assert.Empty(t, w.Saw(), "the executor never noticed")
}

func scenarios() map[string]scenario {
	free := func(w *world.World, pod *corev1.Pod) bool {
		r := w.Pods()[pod.Name+"-r1"]
		return r != nil && !requeue.Gated(r)
	}
	return map[string]scenario{
		"an evicted pod is replaced once": {
			play:    evicted,
			settled: func(w *world.World, pod *corev1.Pod) bool { return free(w, pod) && gone(w.Pods()[pod.Name]) },
			check:   replacedOnce,
		},
		"a pod rejected by its kubelet is replaced once and kept": {
			play: func(w *world.World, pod *corev1.Pod) {
				pod, err := w.Kubelet.Bind(w.T.Context(), pod, "node-a")
				require.NoError(w.T, err)
				_, err = w.Kubelet.Reject(w.T.Context(), pod, "OutOfcpu", "Node didn't have enough resource: cpu")
				require.NoError(w.T, err)
			},
			settled: func(w *world.World, pod *corev1.Pod) bool {
				return free(w, pod) && !requeue.Tracked(w.Pods()[pod.Name])
			},
			check: func(t *testing.T, w *world.World, pod *corev1.Pod) {
				old := w.Pods()[pod.Name]
				assert.Empty(t, old.Finalizers)
				assert.Empty(t, old.Labels[requeue.LabelWorker])
				replacedOnce(t, w, pod)
			},
		},
		"a pod deleted before it had a node, with nothing left to retry, is reported": {
			tuning: map[string]string{requeue.AnnotationMaxRetries: "0"},
			play: func(w *world.World, pod *corev1.Pod) {
				require.NoError(w.T, w.Scheduler.Delete(w.T.Context(), pod.Name))
			},
			settled: func(w *world.World, pod *corev1.Pod) bool { return gone(w.Pods()[pod.Name]) },
			check: func(t *testing.T, w *world.World, pod *corev1.Pod) {
				assert.Empty(t, w.Pods())
				w.UntilSaw("failed " + pod.Name)
			},
		},
		"a stuck image pull is deleted, waited for and replaced once": {
			tuning: map[string]string{requeue.AnnotationImagePullGrace: "100ms"},
			play: func(w *world.World, pod *corev1.Pod) {
				ctx := w.T.Context()
				pod, err := w.Kubelet.Bind(ctx, pod, "node-a")
				require.NoError(w.T, err)
				pod, err = w.Kubelet.ImagePull(ctx, pod, "failed with status code [manifests latest]: 503 Service Unavailable")
				require.NoError(w.T, err)
				pod = w.Until(pod.Name, "deleted by the watcher", func(p *corev1.Pod) bool { return p != nil && p.DeletionTimestamp != nil })
				require.NoError(w.T, w.Kubelet.Terminate(ctx, pod, 137))
			},
			settled: func(w *world.World, pod *corev1.Pod) bool { return free(w, pod) && gone(w.Pods()[pod.Name]) },
			check:   replacedOnce,
		},
	}
}

// A watcher is killed at its n-th write to a pod, before or after the API server has done it, and started again: for
// every n, the end is the same as without.
func TestAWatcherKilledAtAnyOfItsWritesLosesAndDoublesNothing(t *testing.T) {
	for name, s := range scenarios() {
		for _, before := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, killed before the write: %v", name, before), func(t *testing.T) {
				t.Parallel()
				for n := 1; ; n++ {
					w := world.New(t, shared.servers.Config(), ddl)
					if !runKilledAt(t, w, s, n, before) {
						t.Logf("%d writes", n-1)
						require.Greater(t, n, 2, "a scenario has two writes at least")
						return
					}
				}
			})
		}
	}
}

// runKilledAt plays a scenario with a watcher that is killed at its n-th write, and reports whether it made as many.
func runKilledAt(t *testing.T, w *world.World, s scenario, n int, before bool) bool {
	t.Helper()
	task := w.Queue("task")
	task.Annotations = s.tuning
	pod := w.Submit(task)
	p := newProxy(t, shared.servers.Config(), n, before)
	first := startWatcher(t, w, &rest.Config{Host: p.server.URL})
	p.kill = func() { _ = first.Process.Kill() } // SIGKILL
	over := make(chan struct{})
	restarted := make(chan struct{})
	go func() {
		defer close(restarted)
		select {
		case <-p.killed:
			startWatcher(t, w, shared.servers.Config())
		case <-over:
		}
	}()
	s.play(w, pod)
	require.Eventually(t, func() bool { return s.settled(w, pod) }, world.Patience, 20*time.Millisecond, "killed at write %d", n)
	close(over)
	<-restarted
	s.check(t, w, pod)
	for name, left := range w.Pods() {
		if name != pod.Name+"-r1" {
			assert.NotContains(t, left.Finalizers, requeue.Finalizer, "killed at write %d: pod %s", n, name)
			assert.False(t, requeue.Attached(left) && requeue.Held(left), "killed at write %d: pod %s is attached and held", n, name)
		}
	}
	select {
	case <-p.killed:
		return true
	default:
		return false
	}
}
