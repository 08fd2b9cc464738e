package airflow_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/airflow-requeue/airflow-requeue/internal/airflow"
	"github.com/airflow-requeue/airflow-requeue/internal/executor"
	"github.com/airflow-requeue/airflow-requeue/internal/kubelet"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

const (
	patience = 5 * time.Minute
	pace     = 100 * time.Millisecond
)

// stage is an installation as one case sees it: with a scheduler of its own, and a DAG of its own.
type stage struct {
	*installation
	T           *testing.T
	dag         string
	scheduler   *airflow.Scheduler
	executorLog string // a file

	mu    sync.Mutex
	fates map[requeue.Key][]fate
	pods  map[requeue.Key][]*corev1.Pod // in the order in which kubelets saw them
}

// outcome is what a task comes to: what its executor reported, the row that is left, and how many pods came to a kubelet.
type outcome struct {
	Events []string
	State  string
	Try    int
	Pods   int
}

// once is the outcome of a task that has succeeded, as far as Airflow knows, without any trouble.
func once(pods int) outcome {
	return outcome{Events: []string{"queued", "success"}, State: "success", Try: 1, Pods: pods}
}

// newStage gives a case its stage, with the installation's scheduler.
func newStage(t *testing.T, i *installation) *stage {
	t.Helper()
	s := &stage{installation: i, T: t, dag: t.Name()[strings.LastIndex(t.Name(), "/")+1:], scheduler: i.scheduler,
		executorLog: "scheduler.log", fates: map[requeue.Key][]fate{}, pods: map[requeue.Key][]*corev1.Pod{}}
	i.mu.Lock()
	i.stages[s.dag] = s
	i.mu.Unlock()
	t.Cleanup(func() {
		if t.Failed() {
			s.tell()
		}
	})
	return s
}

// change gives the stage a scheduler of its own, with options of its own, in the place of the one that it has.
func (s *stage) change(options map[string]string) {
	s.T.Helper()
	name := fmt.Sprintf("%s-%d", s.dag, time.Now().UnixNano())
	s.executorLog, s.scheduler = name+".log", s.start(name, options)
}

// task adds a task, not yet queued, with the fates of its pods in turn; the last one is that of all pods that follow.
func (s *stage) task(name string, fates ...fate) requeue.Key {
	s.T.Helper()
	return s.mapped(name, -1, fates...)
}

func (s *stage) mapped(name string, index int, fates ...fate) requeue.Key {
	s.T.Helper()
	key := requeue.Key{DagID: s.dag, TaskID: name, RunID: "manual__2026-01-01T00:00:00+00:00", MapIndex: index}
	s.mu.Lock()
	s.fates[key] = fates
	s.mu.Unlock()
	require.NoError(s.T, s.database.Add(s.T.Context(), key))
	return key
}

// queue has the scheduler queue a task, and its executor make the pod.
func (s *stage) queue(key requeue.Key) {
	s.T.Helper()
	s.queueWith(key, nil, "")
}

// queueWith is queue, with annotations for the pod, and a namespace where it is to be another than the executor's.
func (s *stage) queueWith(key requeue.Key, annotations map[string]string, namespace string) {
	s.T.Helper()
	require.NoError(s.T, s.scheduler.Queue(s.T.Context(), key, annotations, namespace))
}

// run adds and queues a task.
func (s *stage) run(name string, fates ...fate) requeue.Key {
	s.T.Helper()
	key := s.task(name, fates...)
	s.queue(key)
	return key
}

// script is the fate of a pod that a kubelet sees for the first time.
func (s *stage) script(pod *corev1.Pod) kubelet.Script {
	key, _, err := executor.Identify(pod)
	assert.NoError(s.T, err)
	s.mu.Lock()
	defer s.mu.Unlock()
	fates := s.fates[key]
	n := min(len(s.pods[key]), len(fates)-1)
	if n < 0 || requeue.Gated(pod) { // a kubelet sees a gated pod only as it is deleted
		return kubelet.Script{Unschedulable: "no test wants it"}
	}
	s.pods[key] = append(s.pods[key], pod)
	return fates[n](s, key)
}

// seen are the pods of a task that came to a kubelet.
func (s *stage) seen(key requeue.Key) []*corev1.Pod {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.pods[key])
}

// pod waits for the nth pod of a task to be as wanted, and returns it.
func (s *stage) pod(key requeue.Key, n int, what string, want func(*corev1.Pod) bool) *corev1.Pod {
	s.T.Helper()
	var pod *corev1.Pod
	s.eventually(what, func() bool {
		seen := s.seen(key)
		if len(seen) <= n {
			return false
		}
		var err error
		pod, err = s.Client.CoreV1().Pods(seen[n].Namespace).Get(s.T.Context(), seen[n].Name, metav1.GetOptions{})
		return err == nil && want(pod)
	})
	return pod
}

// eventually waits for what must come.
func (s *stage) eventually(what string, cond func() bool) {
	s.T.Helper()
	for deadline := time.Now().Add(patience); !cond(); time.Sleep(pace) {
		if time.Now().After(deadline) {
			require.FailNow(s.T, "it never came: "+what)
		}
	}
}

// comes waits for a task to come to its outcome, and then until the executor has seen all there was to see.
func (s *stage) comes(key requeue.Key, want outcome) {
	s.T.Helper()
	s.eventually("the executor is done with "+key.TaskID, func() bool {
		reported, err := s.scheduler.Reported(s.T.Context(), key)
		require.NoError(s.T, err)
		return len(reported.Events) >= len(want.Events) && !reported.Running
	})
	s.settled(key)
	s.fence()
	reported, err := s.scheduler.Reported(s.T.Context(), key)
	require.NoError(s.T, err)
	row, err := s.database.Row(s.T.Context(), key)
	require.NoError(s.T, err)
	assert.Equal(s.T, want, outcome{Events: reported.Events, State: row.State, Try: row.TryNumber, Pods: len(s.seen(key))})
	assert.False(s.T, reported.Running, "it occupies a slot")
	for _, pod := range s.seen(key) {
		assert.Empty(s.T, s.records[pod.Namespace].Broken(pod.Name), "promises that were broken on the way")
	}
}

// settled waits until no pod of a task is ours any more.
func (s *stage) settled(key requeue.Key) {
	s.T.Helper()
	s.eventually("the pods of "+key.TaskID+" are settled", func() bool {
		for _, pod := range s.seen(key) {
			live, err := s.Client.CoreV1().Pods(pod.Namespace).Get(s.T.Context(), pod.Name, metav1.GetOptions{})
			if err == nil && (requeue.Tracked(live) || len(live.Finalizers) > 0) {
				return false
			}
		}
		return true
	})
}

// fence runs a task to its end, so that the executor has seen all that happened before: its watch is in order.
func (s *stage) fence() {
	s.T.Helper()
	s.mu.Lock()
	name := "fence-" + string(rune('a'+len(s.fates)))
	s.mu.Unlock()
	key := s.task(name, works)
	s.queue(key)
	s.eventually("the fence", func() bool {
		reported, err := s.scheduler.Reported(s.T.Context(), key)
		require.NoError(s.T, err)
		return slices.Contains(reported.Events, "success")
	})
}

// tell shows what is known, for a case that failed.
func (s *stage) tell() {
	for key, pods := range s.pods {
		if len(pods) > 0 {
			s.T.Logf("%s:\n%s", key, s.records[pods[0].Namespace].History(pods[0].Name))
		}
	}
	s.T.Logf("%s:\n%s", s.executorLog, s.read(s.executorLog))
	s.T.Logf("the programs:\n%s", s.said.About(strings.ReplaceAll(s.dag, "_", "-"), "level=WARN", "level=ERROR", "panic"))
}
