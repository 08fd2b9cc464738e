package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/airflow-requeue/airflow-requeue/internal/executor"
	"github.com/airflow-requeue/airflow-requeue/internal/kubelet"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// eventsLate is how late Events may be.
const eventsLate = 5 * time.Second

// pace is the time between two things that happen, for whoever reads along.
const pace = 400 * time.Millisecond

// play is what happens on the stage.
type play struct {
	*stage
	observer  *observer
	scheduler *airflow
	kubelet   *kubelet.Kubelet
	scenarios []scenario
	patience  time.Duration // for one scenario

	mu       sync.Mutex
	problems []string // what came otherwise, beside the results
}

func newPlay(s *stage, patience time.Duration) *play {
	p := &play{stage: s, scenarios: scenarios(), patience: patience, observer: newObserver(s.admin, s.show)}
	p.scheduler = &airflow{db: s.db, client: s.airflow, observer: p.observer, show: s.show, failed: p.failed,
		scheduler: executor.Scheduler{Client: s.airflow, Namespace: namespace, JobID: firstJobID}}
	p.kubelet = kubelet.New(s.admin, kubelet.Options{Namespace: namespace, Script: p.script, Failed: p.failed,
		GarbageCollection: 20 * time.Second}) // as in a real cluster
	return p
}

// failed takes note of what must not happen.
func (p *play) failed(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.problems = append(p.problems, err.Error())
}

// begin starts all that plays a part, and returns when all of it is there, with what ends it.
func (p *play) begin(ctx context.Context, cancel context.CancelCauseFunc) (stop func(), err error) {
	ctx, end := context.WithCancel(ctx)
	group, ctx := errgroup.WithContext(ctx)
	stop = func() {
		end()
		if err := group.Wait(); err != nil {
			cancel(err)
		}
	}
	defer func() {
		if err != nil {
			stop()
		}
	}()
	for _, node := range []string{nodeA, nodeB} {
		if err := p.kubelet.AddNode(ctx, node, nil); err != nil {
			return nil, err
		}
	}
	if err := p.observer.begin(ctx); err != nil {
		return nil, err
	}
	var watching sync.WaitGroup
	for _, ignoreHold := range []bool{false, true} {
		watching.Add(1)
		up := sync.OnceFunc(watching.Done)
		group.Go(func() error {
			defer up()
			err := p.scheduler.watch(ctx, ignoreHold, up)
			if err != nil {
				cancel(err)
			}
			return err
		})
	}
	group.Go(func() error { return p.kubelet.Run(ctx) })
	watching.Wait()
	return stop, nil
}

// script finds what a node is to do with a pod.
func (p *play) script(pod *corev1.Pod) kubelet.Script {
	for i := range p.scenarios { // a copy would race with what end takes down
		if p.scenarios[i].name == taskOf(pod) {
			return p.scenarios[i].script(p, requeue.Attempt(pod))
		}
	}
	return kubelet.Default(pod)
}

func taskOf(pod *corev1.Pod) string { return pod.Annotations["task_id"] }

// work is what a pod does that gets as far as its task: the task claims its row, runs until the hold is off and a
// moment more, and ends well.
func (p *play) work() []kubelet.Step {
	return []kubelet.Step{kubelet.Create(), kubelet.Wait(pace), kubelet.Start(), p.beginTask, p.untilReleased,
		kubelet.Wait(pace), p.endTask, kubelet.Exit(0, "")}
}

func (p *play) beginTask(ctx context.Context, _ *kubelet.Kubelet, pod *corev1.Pod) (*corev1.Pod, error) {
	if err := p.observer.await(ctx, taskOf(pod), func(r *record) bool { // so that lines come in their order
		number := r.number(pod.UID)
		return number > 0 && r.pods[number-1].Status.Phase == corev1.PodRunning
	}); err != nil {
		return pod, err
	}
	p.show.say("task", "starts in %s: its row is running, at try 1", short(pod))
	return pod, p.scheduler.begin(ctx, taskOf(pod), pod.Name)
}

func (p *play) untilReleased(ctx context.Context, _ *kubelet.Kubelet, pod *corev1.Pod) (*corev1.Pod, error) {
	err := p.observer.await(ctx, taskOf(pod), func(r *record) bool {
		number := r.number(pod.UID)
		return number > 0 && !requeue.Held(r.pods[number-1])
	})
	return pod, err
}

func (p *play) endTask(ctx context.Context, _ *kubelet.Kubelet, pod *corev1.Pod) (*corev1.Pod, error) {
	return pod, p.scheduler.succeed(ctx, taskOf(pod))
}

func (p *play) drain(ctx context.Context, _ *corev1.Pod) error {
	p.show.say("admin", "drains %s", nodeA)
	return p.kubelet.Drain(ctx, nodeA)
}

func (p *play) delete(ctx context.Context, pod *corev1.Pod) error {
	p.show.say("admin", "deletes the pod")
	err := p.admin.CoreV1().Pods(namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{})
	if err != nil {
		return fmt.Errorf("deleting pod %s: %w", pod.Name, err)
	}
	return nil
}

// act plays a scenario and takes down what came of it. It fails where the demo can't go on.
func (p *play) act(ctx context.Context, number int) error {
	sc := &p.scenarios[number]
	p.show.chapter(number+1, sc)
	limited, cancel := context.WithTimeoutCause(ctx, p.patience, fmt.Errorf("nothing more has come after %s", p.patience))
	defer cancel()
	if err := p.scheduler.queue(limited, sc.name, sc.tuning); err != nil {
		return err
	}
	err := p.befall(limited, sc)
	if err == nil {
		err = p.observer.await(limited, sc.name, func(r *record) bool { return r.over })
	}
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		p.failed(fmt.Errorf("%s: %w", sc.name, err))
	}
	return p.kubelet.Uncordon(ctx, nodeA)
}

func (p *play) befall(ctx context.Context, sc *scenario) error {
	if sc.befall == nil {
		return nil
	}
	var first *corev1.Pod
	err := p.observer.await(ctx, sc.name, func(r *record) bool {
		if len(r.pods) == 0 || !sc.until(r.pods[0]) {
			return false
		}
		first = r.pods[0]
		return true
	})
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(pace):
	}
	return sc.befall(p, ctx, first)
}

// end takes down what came of all scenarios, once airflow-requeue has let go of every pod.
func (p *play) end(ctx context.Context) (numbers, error) {
	if err := p.untilLetGo(ctx); err != nil {
		return numbers{}, err
	}
	events, cancel := context.WithTimeout(ctx, eventsLate)
	defer cancel()
	for i := range p.scenarios {
		sc := &p.scenarios[i]
		row, err := p.db.Get(ctx, keyOf(sc.name))
		if err != nil {
			return numbers{}, err
		}
		_ = p.observer.await(events, sc.name, func(r *record) bool { // how it differs is for judge to say
			sc.take(r, row)
			return slices.Equal(sc.got.outcomes, sc.want.outcomes)
		})
	}
	p.show.flush(time.Now())
	return p.count(ctx)
}

// untilLetGo waits until no pod is tracked or has a finalizer of ours. A pod that was reported while it was deleted
// stays for some seconds.
func (p *play) untilLetGo(ctx context.Context) error {
	deadline := time.Now().Add(p.patience)
	for {
		list, err := p.admin.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return fmt.Errorf("listing what is left: %w", err)
		}
		left := slices.DeleteFunc(list.Items, func(pod corev1.Pod) bool { return !requeue.Tracked(&pod) && len(pod.Finalizers) == 0 })
		if len(left) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			p.failed(fmt.Errorf("%d pods still have the tracked label or a finalizer, %s is one", len(left), left[0].Name))
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(pace):
		}
	}
}
