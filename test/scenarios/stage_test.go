package scenarios

import (
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/airflow-requeue/airflow-requeue/internal/controlplane"
	"github.com/airflow-requeue/airflow-requeue/internal/executor"
	"github.com/airflow-requeue/airflow-requeue/internal/history"
	"github.com/airflow-requeue/airflow-requeue/internal/programs"
	"github.com/airflow-requeue/airflow-requeue/internal/world"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

const ddl = root + "/pkg/tidb/testdata/3.3.2-sqlite.sql"

// installation is a namespace with Airflow's executor and database, and with webhook and watcher as they are deployed.
type installation struct {
	*programs.Site
	built   programs.Built
	record  *history.Record
	events  *history.Events
	log     programs.Log       // of all programs, for a test that failed
	airflow executor.Scheduler // job 1, under Airflow's account
	watcher *programs.Process
	webhook *programs.Process
	queued  atomic.Int64
}

// install starts an installation and returns when its webhook holds pods.
func install(t testing.TB, servers *controlplane.ControlPlane, built programs.Built, watcher, webhook []string) *installation {
	t.Helper()
	w := world.New(t, servers.Config(), ddl)
	i := &installation{Site: programs.NewSite(w, servers), built: built, record: history.Watch(t, w.Client, w.Namespace)}
	i.record.LateAdoption()
	i.events = history.WatchEvents(t, w.Client, w.Namespace, &i.record.Bell)
	w.WatchAs(2)
	i.airflow = i.SchedulerAs(1)
	i.watcher = i.startWatcher(i.Access(i.WatcherUser()), watcher...)
	i.webhook = i.startWebhook(webhook...)
	programs.UntilStamping(t, i.airflow)
	return i
}

// stage is an installation as one case sees it, with the task instances that are the case's own.
type stage struct {
	T testing.TB
	*installation
	patience time.Duration
	tasks    []requeue.Key
	// interrupted says that the webhook has seen, or may see, a time without a leader that can decide.
	interrupted bool
}

// eventually waits for what must come.
func (s *stage) eventually(what string, cond func() bool) {
	s.T.Helper()
	deadline := time.NewTimer(s.patience)
	defer deadline.Stop()
	for {
		rung := s.record.Bell.Next()
		if cond() {
			return
		}
		select {
		case <-rung:
		case <-time.After(50 * time.Millisecond): // for what rings no bell
		case <-deadline.C:
			require.FailNow(s.T, "it never came: "+what)
		}
	}
}

// until waits for a pod to be there and as wanted, and returns it.
func (s *stage) until(name, what string, want func(*corev1.Pod) bool) *corev1.Pod {
	s.T.Helper()
	var pod *corev1.Pod
	s.eventually(fmt.Sprintf("pod %s: %s", name, what), func() bool {
		pod = s.record.Latest(name)
		return pod != nil && want(pod)
	})
	return pod
}

// queue is a task instance that the scheduler has just queued, with its row. Change sets what is unusual, tuning
// among it.
func (s *stage) queue(change ...func(*executor.Task)) executor.Task {
	s.T.Helper()
	task := executor.NewTask("dag", fmt.Sprintf("task-%d", s.queued.Add(1)), "manual__1", time.Now().UTC().Truncate(time.Microsecond))
	task.Annotations = map[string]string{}
	for _, c := range change {
		c(&task)
	}
	s.tasks = append(s.tasks, task.Key)
	row := task
	row.Airflow = executor.Airflow3 // the tables are Airflow 3's, whoever makes the pod
	require.NoError(s.T, s.DB.Insert(s.T.Context(), row.Row()))
	return task
}

// tuned sets a tuning annotation.
func tuned(annotation, value string) func(*executor.Task) {
	return func(task *executor.Task) { task.Annotations[annotation] = value }
}

// row changes the task instance's row, which is as the scheduler left it when it queued the task.
func (s *stage) row(task executor.Task, change func(*requeue.TaskInstance)) {
	s.T.Helper()
	task.Airflow = executor.Airflow3
	row := task.Row()
	change(&row)
	require.NoError(s.T, s.DB.Update(s.T.Context(), row))
}

// state is a row in a state.
func state(is requeue.State) func(*requeue.TaskInstance) {
	return func(row *requeue.TaskInstance) { row.State = is }
}

// runs is a row whose task runs under a hostname.
func runs(hostname string) func(*requeue.TaskInstance) {
	return func(row *requeue.TaskInstance) { row.State, row.Hostname = requeue.StateRunning, hostname }
}

// submit has Airflow create the task's pod, which the webhook holds.
func (s *stage) submit(task executor.Task) *corev1.Pod {
	s.T.Helper()
	if s.interrupted {
		s.untilLed()
		programs.UntilStamping(s.T, s.airflow)
		s.interrupted = false
	}
	pod, err := s.airflow.Create(s.T.Context(), task)
	require.NoError(s.T, err)
	require.True(s.T, requeue.Held(pod) && requeue.Tracked(pod) && slices.Contains(pod.Finalizers, requeue.Finalizer), "the webhook holds it")
	s.eventually("its history begins", func() bool { return len(s.record.Of(pod.Name)) > 0 })
	return pod
}

// patch changes a pod by a merge patch, as a person or another controller would.
func (s *stage) patch(name, patch string, subresources ...string) *corev1.Pod {
	s.T.Helper()
	pod, err := s.Client.CoreV1().Pods(s.Namespace).Patch(s.T.Context(), name, types.MergePatchType, []byte(patch), metav1.PatchOptions{}, subresources...)
	require.NoError(s.T, err)
	return pod
}

// ok is the pod of a step that has to succeed.
func (s *stage) ok(pod *corev1.Pod, err error) *corev1.Pod {
	s.T.Helper()
	require.NoError(s.T, err)
	return pod
}

// do is a step that has to succeed.
func (s *stage) do(err error) {
	s.T.Helper()
	require.NoError(s.T, err)
}

// close is the last look at a case: the promises held all the time, and what is over carries nothing of ours.
func (s *stage) close() {
	s.T.Helper()
	for _, key := range s.tasks {
		s.eventually("no pod of "+key.String()+" that is over keeps finalizer or hold", func() bool {
			return !slices.ContainsFunc(s.record.Ever(key), func(p *corev1.Pod) bool {
				return s.record.Latest(p.Name) != nil && unfinished(p)
			})
		})
		for _, p := range s.record.Ever(key) {
			assert.Empty(s.T, s.record.Broken(p.Name), "promises that were broken on the way")
		}
	}
}
