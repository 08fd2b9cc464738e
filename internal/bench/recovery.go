package bench

import (
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/airflow-requeue/airflow-requeue/internal/executor"
	"github.com/airflow-requeue/airflow-requeue/internal/kubelet"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// recovery has pods fail one at a time, each after a pod was created, and one replaced by hand, where nobody looks.
func recovery(s *stage) {
	n, warm := s.few(400, 4), s.few(20, 1)
	s.with(func(bare *site) {
		s.with(func(i *site) {
			i.install()
			airflow, beside := i.asAirflow(), bare.asAirflow()
			kubelets := kubelet.New(s.client, kubelet.Options{Namespace: i.Namespace})
			free := i.watchFree()
			create, recovered := s.report.series("recovery.create", "s"), s.report.series("recovery.replaced", "s", "who", ours)
			alone := s.report.series("recovery.replaced", "s", "who", none)
			client := s.as(i.WatcherUser())
			for k, task := range tasks(n + warm) {
				_, took := bare.submit(beside, task)
				writes := bare.replaceBare(client, task)
				pod := i.fail(airflow, kubelets, task)
				written := time.Now()
				at := <-free
				require.Equal(i.t, pod.Name, chain(at.pod), "which pod is replaced")
				if k < warm {
					create.Discarded++
					recovered.Discarded++
					alone.Discarded++
					continue
				}
				create.add(took)
				alone.add(writes)
				recovered.add(at.when.Sub(written).Seconds())
				for step, when := range at.steps {
					s.report.series("recovery.steps", "s", "step", step).add(when.Sub(written).Seconds())
				}
			}
			i.replaced(n + warm)
			for _, step := range []string{"1 detached", "2 created", "3 committed", "4 stripped", "5 ungated"} {
				s.say("recovery: %s after %.1f ms", step, s.report.find("recovery.steps", "step", step).P50*1e3)
			}
			s.say("recovery: p50 %.1f ms, %.1f x a create; p99 %.1f ms, %.1f x; the same requests alone: %.1f x, %.1f x", recovered.P50*1e3,
				recovered.P50/create.P50, recovered.P99*1e3, recovered.P99/create.P99, alone.P50/create.P50, alone.P99/create.P99)
		})
	})
	if s.options.Airflow {
		s.airflowRecovers()
	}
}

// submit creates a task's pod, and returns the seconds that it took.
func (i *site) submit(airflow kubernetes.Interface, task executor.Task) (*corev1.Pod, float64) {
	i.t.Helper()
	task.Namespace = i.Namespace
	asked := time.Now()
	pod, err := airflow.CoreV1().Pods(i.Namespace).Create(i.t.Context(), executor.Pod(task), metav1.CreateOptions{})
	took := time.Since(asked).Seconds()
	require.NoError(i.t, err)
	return pod, took
}

// fail queues a task, and has its pod fail before it starts. It returns when that is written.
func (i *site) fail(airflow kubernetes.Interface, kubelets *kubelet.Kubelet, task executor.Task) *corev1.Pod {
	i.t.Helper()
	task.QueuedAt = time.Now().UTC().Truncate(time.Microsecond)
	i.rows.queue(task)
	pod, _ := i.submit(airflow, task)
	pod, err := kubelets.Bind(i.t.Context(), pod, "node")
	require.NoError(i.t, err)
	pod, err = kubelets.Create(i.t.Context(), pod)
	require.NoError(i.t, err)
	pod, err = evicted(i.t.Context(), kubelets, pod)
	require.NoError(i.t, err)
	return pod
}

// replaceBare makes the requests of a replacement one after the other, and returns the seconds that they took: what is left of a
// recovery when it is known at once what to do.
func (i *site) replaceBare(client kubernetes.Interface, task executor.Task) float64 {
	i.t.Helper()
	old := i.Submit(task.Again(task.QueuedAt))
	next := requeue.Next{Attempt: 1, QueuedAt: task.QueuedAt, NotBefore: time.Now()}
	body, err := i.Sealer.Replacement(old, next, requeue.ReplacementName(old, next, false))
	require.NoError(i.t, err)
	began := time.Now()
	err = i.requeueBare(client, old, body, 0)
	took := time.Since(began).Seconds()
	require.NoError(i.t, err)
	return took
}

// freed is a replacement that may run now.
type freed struct {
	pod   *corev1.Pod
	when  time.Time
	steps map[string]time.Time // when the watch showed each write on the way
}

// stepOf names the write that has left a pod as it is.
func stepOf(pod *corev1.Pod) string {
	switch {
	case requeue.RequeueOf(pod) == "" && !requeue.Tracked(pod):
		return "4 stripped"
	case requeue.RequeueOf(pod) == "" && requeue.Detached(pod):
		return "1 detached"
	case requeue.RequeueOf(pod) == "":
		return ""
	case !requeue.Gated(pod):
		return "5 ungated"
	case requeue.Committed(pod):
		return "3 committed"
	}
	return "2 created"
}

// watchFree tells of each replacement when a watch shows it without its gate for the first time.
func (i *site) watchFree() <-chan freed {
	i.t.Helper()
	watch, err := i.client.CoreV1().Pods(i.Namespace).Watch(i.t.Context(), metav1.ListOptions{})
	require.NoError(i.t, err)
	i.t.Cleanup(watch.Stop)
	free := make(chan freed, 1024)
	go func() {
		steps := map[string]map[string]time.Time{} // by chain
		for event := range watch.ResultChan() {
			pod, ok := event.Object.(*corev1.Pod)
			if !ok {
				continue
			}
			now, step, of := time.Now(), stepOf(pod), steps[chain(pod)]
			if of == nil {
				of = map[string]time.Time{}
				steps[chain(pod)] = of
			}
			if _, again := of[step]; again || step == "" {
				continue
			}
			if of[step] = now; step == "5 ungated" {
				free <- freed{pod, now, of}
			}
		}
	}()
	return free
}
