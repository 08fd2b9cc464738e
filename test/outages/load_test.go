package outages

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/airflow-requeue/airflow-requeue/internal/executor"
	"github.com/airflow-requeue/airflow-requeue/internal/kubelet"
	"github.com/airflow-requeue/airflow-requeue/internal/world"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// fate is what becomes of a task's first pod; one that replaces it runs.
type fate string

const (
	runs     fate = "runs"     // to success
	lasts    fate = "lasts"    // runs until the test says that it is over
	evicted  fate = "evicted"  // drained while its container is made
	rejected fate = "rejected" // by its kubelet
	shutdown fate = "shutdown" // its node shuts down
	unplaced fate = "unplaced" // deleted before it has a node
	unfit    fate = "unfit"    // has no node, for ever
	broken   fate = "broken"   // its container fails before the task begins
)

// replaceable are the fates whose pods deserve a replacement.
func replaceable() []fate { return []fate{evicted, rejected, shutdown, unplaced} }

// day is a usual mix: most pods run, every kind of trouble comes up.
func day() []fate {
	return []fate{runs, evicted, runs, rejected, runs, broken, runs, shutdown, runs, unplaced}
}

// metadata is Airflow's side of the metadata database.
type metadata interface {
	Insert(ctx context.Context, t requeue.TaskInstance) error
	Get(ctx context.Context, key requeue.Key) (requeue.TaskInstance, error)
	Update(ctx context.Context, t requeue.TaskInstance) error
}

// load is Airflow at work, with its kubelets: it queues tasks and submits their pods, deals out the pods' fates, plays
// the task processes and the executor, and keeps a ledger of all that happened.
type load struct {
	t        *testing.T
	world    *world.World
	airflow  executor.Scheduler // by the account that the webhook knows
	rows     metadata
	over     chan struct{}                     // closed when pods that last are to end
	queueing func(executor.Task) executor.Task // how tasks are queued; nil: as NewTask does
	playing  sync.WaitGroup
	scripts  map[fate]func(*corev1.Pod) kubelet.Script // of a test's own; set before the first pod
	stays    map[fate]bool                             // whose first pods may stay as they are

	mu     sync.Mutex
	tasks  map[string]*entry     // by task id
	names  []string              // in order
	wrongs []string              // what must never be, and was
	pods   map[string][]standing // what each pod was like, in turn
	byTask map[string][]string   // names of the pods of each task
}

// entry is what the ledger has of a task.
type entry struct {
	executor.Task
	fate      fate
	pod       string    // its first
	held      bool      // at its creation
	at        time.Time // when it was submitted
	made      time.Time // when its pod was there
	starts    []string  // pods in which the task process began
	succeeded bool      // the task process ended well
	failed    []string  // pods that the executor saw fail
	vanished  bool      // a pod of it went unheld and without an end, which no executor reports
}

func newLoad(t *testing.T, w *world.World, airflow executor.Scheduler, rows metadata) *load {
	t.Helper()
	l := &load{t: t, world: w, airflow: airflow, rows: rows, over: make(chan struct{}), tasks: map[string]*entry{}, pods: map[string][]standing{}, byTask: map[string][]string{},
		stays: map[fate]bool{lasts: true, unfit: true}}
	ctx, cancel := context.WithCancel(context.Background())
	kubelets := kubelet.New(w.Client, kubelet.Options{Namespace: w.Namespace, Script: l.script, GarbageCollection: time.Second,
		Failed: func(err error) { t.Logf("kubelet: %v", err) }})
	l.playing.Go(func() { _ = kubelets.Run(ctx) })
	started := make(chan struct{})
	var once sync.Once
	watch := &executor.Watch{Client: w.Client, Namespace: w.Namespace, JobID: airflow.JobID, Report: func(s executor.Seen) { l.see(ctx, s) },
		Started: func() { once.Do(func() { close(started) }) }}
	l.playing.Go(func() { _ = watch.Run(ctx) })
	<-started
	l.playing.Go(func() { l.keepWatch(ctx) })
	t.Cleanup(func() {
		cancel()
		l.playing.Wait()
	})
	return l
}

// submit queues a task and creates its pod, as often as that takes: the executor tries again what the API server did
// not answer. held says whether the pod is.
func (l *load) submit(f fate) (pod *corev1.Pod, held bool) {
	l.mu.Lock()
	id := fmt.Sprintf("%s-%d", f, len(l.names))
	task := executor.NewTask("dag", id, "manual__1", time.Now().UTC().Truncate(time.Microsecond))
	if l.queueing != nil {
		task = l.queueing(task)
	}
	e := &entry{Task: task, fate: f, at: time.Now()}
	l.tasks[id] = e
	l.names = append(l.names, id)
	l.mu.Unlock()
	ctx := l.t.Context()
	row := task.Row()
	row.ID = task.ID // which the pods of Airflow 2 do not name
	err := l.rows.Insert(ctx, row)
	if ctx.Err() != nil || !assert.NoError(l.t, err) {
		return nil, false
	}
	pod, err = l.airflow.Create(ctx, task)
	for err != nil && ctx.Err() == nil {
		if apierrors.IsAlreadyExists(err) { // the answer was lost
			name := executor.Pod(task).Name
			pod, err = l.airflow.Client.CoreV1().Pods(l.airflow.Namespace).Get(ctx, name, metav1.GetOptions{})
		} else {
			time.Sleep(pace)
			pod, err = l.airflow.Create(ctx, task)
		}
	}
	if err != nil {
		return nil, false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	e.pod, e.held, e.made = pod.Name, requeue.Held(pod), time.Now()
	return pod, e.held
}

// submitted submits a pod and reports whether it is held.
func (l *load) submitted(f fate) bool {
	_, held := l.submit(f)
	return held
}

// crowd is how many tasks of its own work leaves unfinished: a machine that is too slow for its pace gets fewer.
const crowd = 40

// work submits pods of the fates in turn, one at a time, until it is stopped. Stop it before anything it needs ends.
func (l *load) work(every time.Duration, fates ...fate) (stop func()) {
	ctx, cancel := context.WithCancel(l.t.Context())
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		var submitted []*corev1.Pod
		for n := 0; ; {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
			submitted = slices.DeleteFunc(submitted, l.isOver)
			if len(submitted) >= crowd {
				continue
			}
			if pod, _ := l.submit(fates[n%len(fates)]); pod != nil {
				submitted = append(submitted, pod)
			}
			n++
		}
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		<-stopped
	})
	l.t.Cleanup(stop)
	return stop
}

// isOver reports whether the ledger knows the end of a pod's task.
func (l *load) isOver(pod *corev1.Pod) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.tasks[pod.Annotations["task_id"]]
	return e.succeeded || len(e.failed) > 0 || e.vanished
}

// script deals out a pod's fate.
func (l *load) script(pod *corev1.Pod) kubelet.Script {
	word, _, _ := strings.Cut(pod.Annotations["task_id"], "-")
	f := fate(word)
	if requeue.RequeueOf(pod) != "" {
		f = runs
	}
	if special, ok := l.scripts[f]; ok {
		return special(pod)
	}
	some := kubelet.Wait(300 * time.Millisecond)
	switch f {
	case evicted:
		return kubelet.Script{Steps: []kubelet.Step{kubelet.Create(), some, kubelet.Evict()}}
	case rejected:
		return kubelet.Script{Steps: []kubelet.Step{kubelet.Reject("OutOfcpu", "Node didn't have enough resource: cpu")}}
	case shutdown:
		return kubelet.Script{Steps: []kubelet.Step{kubelet.Create(), some, kubelet.NodeShutdown()}}
	case unplaced:
		l.deleteSoon(pod)
		return kubelet.Script{Unschedulable: "0/0 nodes are available."}
	case unfit:
		return kubelet.Script{Unschedulable: "0/0 nodes are available."}
	case broken:
		return kubelet.Script{Steps: []kubelet.Step{kubelet.Create(), kubelet.Start(), some, kubelet.Exit(1, "")}}
	case lasts:
		return kubelet.Script{Steps: []kubelet.Step{kubelet.Create(), kubelet.Start(), l.process(kubelet.Until(l.over))}}
	default:
		return kubelet.Script{Steps: []kubelet.Step{kubelet.Create(), kubelet.Start(), some, l.process(kubelet.Wait(1500 * time.Millisecond))}}
	}
}

// deleteSoon deletes a pod a moment after it was made, as often as that takes.
func (l *load) deleteSoon(pod *corev1.Pod) {
	ctx := context.WithoutCancel(l.t.Context())
	l.playing.Go(func() {
		for range 600 {
			time.Sleep(3 * pace)
			if l.airflow.Delete(ctx, pod.Name) == nil {
				return
			}
		}
	})
}

// process is the task process: it claims its row, works, and ends well. One that comes to a row that is not queued for
// it exits with 1, as Airflow's does.
func (l *load) process(work kubelet.Step) kubelet.Step {
	return func(ctx context.Context, k *kubelet.Kubelet, pod *corev1.Pod) (*corev1.Pod, error) {
		if !l.claim(ctx, pod) {
			return k.Exit(ctx, pod, 1, "")
		}
		pod, err := work(ctx, k, pod)
		if err != nil {
			return pod, err
		}
		l.succeed(ctx, pod)
		return k.Exit(ctx, pod, 0, "")
	}
}

func (l *load) claim(ctx context.Context, pod *corev1.Pod) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.tasks[pod.Annotations["task_id"]]
	e.starts = append(e.starts, pod.Name)
	row, err := l.rows.Get(ctx, e.Key)
	if err != nil || row.State != requeue.StateQueued {
		return false
	}
	row.State, row.Hostname = requeue.StateRunning, pod.Name
	return l.rows.Update(ctx, row) == nil
}

func (l *load) succeed(ctx context.Context, pod *corev1.Pod) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.tasks[pod.Annotations["task_id"]]
	row, err := l.rows.Get(ctx, e.Key)
	row.State, row.Hostname = "success", pod.Name
	e.succeeded = err == nil && l.rows.Update(ctx, row) == nil
}

// see is the executor and its scheduler: a pod that succeeded is deleted, the task of one that failed is failed.
func (l *load) see(ctx context.Context, s executor.Seen) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.tasks[s.Key.TaskID]
	switch {
	case e == nil: // not of this ledger
	case s.State == executor.Failed && !slices.Contains(e.failed, s.Pod.Name):
		e.failed = append(e.failed, s.Pod.Name)
		if row, err := l.rows.Get(ctx, s.Key); err == nil && (row.State == requeue.StateQueued || row.State == requeue.StateRunning) {
			row.State = "failed"
			_ = l.rows.Update(ctx, row)
		}
	case s.State == executor.Adopted:
		l.wrongs = append(l.wrongs, "the executor lost sight of pod "+s.Pod.Name)
	case s.State == executor.Succeeded:
		l.playing.Go(func() { _ = l.airflow.Finish(ctx, s) })
	}
}
