package outages

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/stretchr/testify/assert"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// keepWatch watches all pods and notes what must never be: two pods of a task that the executor counts, or two that can
// run.
func (l *load) keepWatch(ctx context.Context) {
	factory := informers.NewSharedInformerFactoryWithOptions(l.world.Client, 0, informers.WithNamespace(l.world.Namespace))
	note := func(obj any, gone bool) {
		if stale, ok := obj.(cache.DeletedFinalStateUnknown); ok {
			obj = stale.Obj
		}
		if pod, ok := obj.(*corev1.Pod); ok {
			l.note(pod, gone)
		}
	}
	_, err := factory.Core().V1().Pods().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(obj any) { note(obj, false) },
		UpdateFunc: func(_, obj any) { note(obj, false) },
		DeleteFunc: func(obj any) { note(obj, true) },
	})
	if !assert.NoError(l.t, err) {
		return
	}
	factory.Start(ctx.Done())
	<-ctx.Done()
	factory.Shutdown()
}

// standing is what a pod was like from a version of it on.
type standing struct {
	since          string // resourceVersion
	attached, able bool
}

func (l *load) note(changed *corev1.Pod, gone bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := standing{since: changed.ResourceVersion}
	if !gone {
		s.attached, s.able = requeue.Attached(changed), !requeue.Gated(changed) && !requeue.Ended(changed)
	}
	l.pods[changed.Name] = append(l.pods[changed.Name], s)
	l.byTask[changed.Annotations["task_id"]] = append(l.byTask[changed.Annotations["task_id"]], changed.Name)
	if gone {
		if e := l.tasks[changed.Annotations["task_id"]]; e != nil && !requeue.Held(changed) && changed.Status.Phase == corev1.PodPending {
			e.vanished = true
		}
	}
}

// doubles are pods of one task that were both counted by the executor, or could both run, at the same version. An informer
// that lists again tells of pods one by one: what it has of two at the same moment need never have been.
func (l *load) doubles() []string {
	var found []string
	for _, names := range l.byTask {
		slices.Sort(names)
		names = slices.Compact(names)
		for i, one := range names {
			for _, other := range names[i+1:] {
				for what, is := range map[string]func(standing) bool{
					"are counted by the executor": func(s standing) bool { return s.attached }, "can run": func(s standing) bool { return s.able }} {
					if overlap(l.pods[one], l.pods[other], is) {
						found = append(found, fmt.Sprintf("pods of one task that %s: %s and %s", what, one, other))
					}
				}
			}
		}
	}
	return found
}

func overlap(one, other []standing, is func(standing) bool) bool {
	before := func(a, b string) bool {
		order, err := resourceversion.CompareResourceVersion(a, b)
		return err == nil && order < 0
	}
	for i, a := range one {
		for j, b := range other {
			aEnds, bEnds := i+1 < len(one) && !before(b.since, one[i+1].since), j+1 < len(other) && !before(a.since, other[j+1].since)
			if is(a) && is(b) && !aEnds && !bEnds {
				return true
			}
		}
	}
	return false
}

// unsettled is what is still to come: pods of ours, and tasks that have neither succeeded nor been seen to fail. A task
// whose pod has no node, or is to last, has its pod. One whose pod was deleted before it had a node, unheld or released
// before, stays queued in Airflow until it is revoked: no executor reports it.
func (l *load) unsettled() []string {
	pods := l.world.Pods()
	l.mu.Lock()
	defer l.mu.Unlock()
	var left []string
	alive := map[string]bool{}
	for name, p := range pods {
		if requeue.Tracked(p) || slices.Contains(p.Finalizers, requeue.Finalizer) || requeue.Held(p) && requeue.Attached(p) {
			left = append(left, fmt.Sprintf("pod %s is held: %s, deleted %t", name, p.Status.Phase, p.DeletionTimestamp != nil))
		}
		if !requeue.Ended(p) && requeue.Attached(p) {
			alive[p.Annotations["task_id"]] = true
		}
	}
	for _, id := range l.names {
		e := l.tasks[id]
		waits := alive[id] && l.stays[e.fate]
		// A pod that came and went unheld while no watch could be had was never seen.
		unseen := !e.made.IsZero() && !e.held && !alive[id]
		silent := e.fate == unplaced && (e.vanished || unseen)
		if !e.succeeded && len(e.failed) == 0 && !waits && !silent {
			left = append(left, fmt.Sprintf("task %s is lost: %d starts, held at first %t", id, len(e.starts), e.held))
		}
	}
	return left
}

// settles waits until nothing is left to come, and says that no task was lost or doubled on the way.
func (l *load) settles() {
	l.t.Helper()
	eventually(l.t, "all is settled", l.unsettled)
	l.nothingDoubled()
}

// nothingDoubled says that each task process began once at most, and that the executor saw one end of each task.
func (l *load) nothingDoubled() {
	l.t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	assert.Empty(l.t, append(l.doubles(), l.wrongs...))
	for _, id := range l.names {
		e := l.tasks[id]
		assert.LessOrEqual(l.t, len(e.starts), 1, "task %s began in %v", id, e.starts)
		assert.LessOrEqual(l.t, len(e.failed), 1, "task %s failed in %v", id, e.failed)
		assert.False(l.t, e.succeeded && len(e.failed) > 0, "task %s succeeded, and failed in %v", id, e.failed)
	}
}

// entries are the ledger's entries that are as asked.
func (l *load) entries(as func(*entry) bool) []*entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	var found []*entry
	for _, id := range l.names {
		if as(l.tasks[id]) {
			found = append(found, l.tasks[id])
		}
	}
	return found
}

// count is how many entries are as asked.
func (l *load) count(as func(*entry) bool) int { return len(l.entries(as)) }

// unseen says that of the tasks that are as asked, the executor saw no failure, and there are some.
func (l *load) unseen(as func(*entry) bool) {
	l.t.Helper()
	entries := l.entries(as)
	assert.NotEmpty(l.t, entries)
	for _, e := range entries {
		assert.Empty(l.t, e.failed, "task %s, submitted at %s", e.TaskID, e.at.Format("15:04:05.0"))
		assert.True(l.t, e.succeeded, "task %s, submitted at %s", e.TaskID, e.at.Format("15:04:05.0"))
	}
}

// took reports whether a task's first pod was to be replaced and was held.
func took(e *entry) bool { return e.held && slices.Contains(replaceable(), e.fate) }

// untilReplaced waits for some tasks that were submitted since to have lost their first pod and succeeded all the same.
func (l *load) untilReplaced(since time.Time) {
	l.t.Helper()
	until(l.t, "pods are replaced", func() bool {
		return l.count(func(e *entry) bool { return took(e) && e.at.After(since) && e.succeeded }) >= len(replaceable())
	})
}
