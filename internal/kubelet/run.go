package kubelet

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"
)

// Run drives every pod that it sees until the context ends: it schedules those without scheduling gates, plays their
// scripts, finishes deletions as a kubelet does, and collects what was deleted before it had a node. A pod that already
// has container statuses is only watched for its deletion. Run returns when nothing of it runs any more.
func (k *Kubelet) Run(ctx context.Context) error {
	factory := informers.NewSharedInformerFactoryWithOptions(k.client, 0, informers.WithNamespace(k.options.Namespace))
	informer := factory.Core().V1().Pods().Informer()
	running := *k
	running.running = true
	r := &runner{k: &running, pods: map[types.UID]*played{}}
	_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(obj any) { r.see(ctx, obj) },
		UpdateFunc: func(_, obj any) { r.see(ctx, obj) },
		DeleteFunc: func(obj any) { r.forget(obj) },
	})
	if err != nil {
		return fmt.Errorf("watching pods: %w", err)
	}
	factory.Start(ctx.Done())
	<-ctx.Done()
	factory.Shutdown()
	r.playing.Wait()
	return nil
}

// runner is Run's memory: what is being played on which pod.
type runner struct {
	k       *Kubelet
	playing sync.WaitGroup
	mu      sync.Mutex
	pods    map[types.UID]*played
}

// played is a pod that Run has begun with.
type played struct {
	stop     context.CancelFunc // ends the script
	stopped  chan struct{}      // closed when the script has ended
	script   Script
	last     *corev1.Pod // as the script wrote it last; read it when stopped is closed
	finished bool        // its deletion is being finished
}

// see begins a pod's script when it may be scheduled, and the end of its deletion when it is deleted.
func (r *runner) see(ctx context.Context, obj any) {
	pod, ok := obj.(*corev1.Pod)
	if !ok || ctx.Err() != nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.pods[pod.UID]
	if pod.DeletionTimestamp != nil {
		if p == nil {
			p = &played{stop: func() {}, stopped: closed(), script: r.k.options.Script(pod), last: pod}
			r.pods[pod.UID] = p
		}
		if !p.finished {
			p.finished = true
			r.playing.Go(func() { r.finish(ctx, p, pod) })
		}
		return
	}
	if p != nil || isEnded(pod) || len(pod.Spec.SchedulingGates) > 0 || len(pod.Status.ContainerStatuses) > 0 {
		return // begun, over, not yet to be scheduled, or driven by hand
	}
	p = &played{stopped: make(chan struct{}), script: r.k.options.Script(pod), last: pod}
	scripted, stop := context.WithCancel(ctx)
	p.stop = stop
	r.pods[pod.UID] = p
	r.playing.Go(func() {
		defer close(p.stopped)
		defer stop()
		r.k.report(r.play(scripted, p))
	})
}

func (r *runner) forget(obj any) {
	if gone, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		obj = gone.Obj
	}
	pod, ok := obj.(*corev1.Pod)
	if !ok {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if p := r.pods[pod.UID]; p != nil {
		p.stop()
		delete(r.pods, pod.UID)
	}
}

func (r *runner) play(ctx context.Context, p *played) error {
	var err error
	if p.last.Spec.NodeName == "" {
		if p.last, err = r.k.schedule(ctx, p.last, p.script); err != nil || p.last.Spec.NodeName == "" {
			return err
		}
	}
	for _, step := range p.script.Steps {
		if p.last, err = step(ctx, r.k, p.last); err != nil {
			return err
		}
	}
	return nil
}

// finish finishes a pod's deletion once its script has stopped. The pod is read anew: the script may have written since
// the deletion was seen.
func (r *runner) finish(ctx context.Context, p *played, pod *corev1.Pod) {
	p.stop()
	<-p.stopped
	live, err := r.k.read(ctx, pod)
	if err != nil {
		r.k.report(err)
		return
	}
	if live.Spec.NodeName == "" {
		if r.k.options.GarbageCollection < 0 {
			return
		}
		if err := r.k.wait(ctx, r.k.options.GarbageCollection); err != nil {
			return
		}
		r.k.report(r.k.CollectGarbage(ctx, live))
		return
	}
	if p.script.Silent {
		return
	}
	signal := p.script.Signal
	switch signal {
	case 0:
		signal = terminated
	case ExitWell:
		signal = 0
	}
	if p.script.Linger > 0 && !isEnded(live) {
		if live, err = r.k.write(ctx, live, acknowledged); err != nil {
			r.k.report(err)
			return
		}
		if r.k.wait(ctx, p.script.Linger) != nil {
			return
		}
	}
	r.k.report(r.k.Terminate(ctx, live, signal))
}

// schedule binds a pod, as soon as there is a node for it.
func (k *Kubelet) schedule(ctx context.Context, pod *corev1.Pod, script Script) (*corev1.Pod, error) {
	if script.Unschedulable != "" {
		return k.Unschedulable(ctx, pod, script.Unschedulable)
	}
	if script.Node != "" {
		return k.Bind(ctx, pod, script.Node)
	}
	node, changed := k.nodes.choose(pod)
	for node == "" {
		message := fmt.Sprintf("0/%d nodes are available.", k.nodes.size())
		var err error
		if pod, err = k.Unschedulable(ctx, pod, message); err != nil {
			return pod, err
		}
		select {
		case <-ctx.Done():
			return pod, ctx.Err()
		case <-changed:
			node, changed = k.nodes.choose(pod)
		}
	}
	return k.Bind(ctx, pod, node)
}

func (k *Kubelet) wait(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := k.options.Clock.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C():
		return nil
	}
}

// report passes a failure on, unless it is none: the pod is gone or was deleted meanwhile, or Run ends.
func (k *Kubelet) report(err error) {
	if err == nil || apierrors.IsNotFound(err) || apierrors.IsConflict(err) || errors.Is(err, context.Canceled) {
		return
	}
	k.options.Failed(err)
}

func closed() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}
