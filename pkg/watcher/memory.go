package watcher

import (
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// memory is what the watcher knows and no object says. All of it may be lost in a restart: decisions are then slower
// (a grace begins anew) or more careful, never wrong.
type memory struct {
	mu      sync.Mutex
	pods    map[types.UID]*podMemory
	budgets map[queueing]*budget
	taken   map[types.UID]bool // pods that a sync has in hand, and whether they were asked for meanwhile
}

type podMemory struct {
	seenQueued   time.Time // queued_dttm seen before the pod ran
	endedSince   time.Time // first seen ended
	unknownSince time.Time // first seen signed with an unknown key
	unreadSince  time.Time // its row could not be read since; zero while it can be
	view         view      // the row and airflow-worker, as seen last
	viewSince    time.Time
	refused      requeue.Refusal
	refusals     int
	terminating  bool   // a create was answered that the namespace is terminating
	written      string // resourceVersion of our own last write
	observation  observation
}

// view is what an adoption changes in two steps.
type view struct {
	row    requeue.TaskInstance
	worker string
}

// saw takes note of a pod's row and airflow-worker, and returns since when both have been seen so.
func (p *podMemory) saw(row requeue.TaskInstance, worker string, now time.Time) time.Time {
	if v := (view{row, worker}); p.viewSince.IsZero() || v != p.view {
		p.view, p.viewSince = v, now
	}
	return p.viewSince
}

// unread takes the outcome of a read of the pod's row, and returns since when the ended pod waits for one. The row of one
// pod may be unreadable while all others can be read: its minute is its own.
func (p *podMemory) unread(err error, now time.Time) time.Time {
	switch {
	case err == nil:
		p.unreadSince = time.Time{}
	case p.unreadSince.IsZero():
		p.unreadSince = now
	}
	if p.endedSince.After(p.unreadSince) {
		return p.endedSince
	}
	return p.unreadSince
}

// queueing is one stay of a try in state queued: what a budget belongs to.
type queueing struct {
	ref      requeue.Ref
	try      int
	queuedAt int64 // queued_dttm in microseconds
}

type budget struct {
	replaced map[types.UID]bool
	last     time.Time
}

// budgetsFor is how long a queueing's budget is remembered after its last replacement: Airflow's own requeue may make a
// fresh pod for it.
const budgetsFor = time.Hour

func newMemory() *memory {
	return &memory{pods: map[types.UID]*podMemory{}, budgets: map[queueing]*budget{}, taken: map[types.UID]bool{}}
}

// take takes a pod in hand. Where another sync has it, that one is told at its end that the pod was asked for.
func (m *memory) take(uid types.UID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, taken := m.taken[uid]; taken {
		m.taken[uid] = true
		return false
	}
	m.taken[uid] = false
	return true
}

// leave reports whether the pod was asked for meanwhile.
func (m *memory) leave(uid types.UID) (asked bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	asked = m.taken[uid]
	delete(m.taken, uid)
	return asked
}

// of runs f on what is remembered of a pod.
func (m *memory) of(uid types.UID, f func(*podMemory)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p, ok := m.pods[uid]
	if !ok {
		p = &podMemory{}
		m.pods[uid] = p
	}
	f(p)
}

func (m *memory) forget(uid types.UID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.pods, uid)
}

// wrote remembers our own last write, so that an older pod in the informer is not decided on again.
func (m *memory) wrote(pod *corev1.Pod) {
	m.of(pod.UID, func(p *podMemory) { p.written = pod.ResourceVersion })
}

// behind reports whether a pod's version is older than our own last write to it: the event of that write is still to come.
func (m *memory) behind(uid types.UID, version string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	p, ok := m.pods[uid]
	if !ok || p.written == "" {
		return false
	}
	order, err := resourceversion.CompareResourceVersion(version, p.written)
	return err == nil && order < 0
}

func queueingOf(job requeue.Job, queuedAt time.Time) queueing {
	return queueing{ref: job.Ref, try: job.TryNumber, queuedAt: queuedAt.UnixMicro()}
}

// spend counts a replaced pod against its queueing's budget.
func (m *memory) spend(q queueing, uid types.UID, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, ok := m.budgets[q]
	if !ok {
		b = &budget{replaced: map[types.UID]bool{}}
		m.budgets[q] = b
	}
	b.replaced[uid] = true
	b.last = now
}

// spent counts the other pods that were replaced in the queueing.
func (m *memory) spent(q queueing, uid types.UID) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, ok := m.budgets[q]
	if !ok {
		return 0
	}
	n := len(b.replaced)
	if b.replaced[uid] {
		n--
	}
	return n
}

// prune forgets budgets that nothing can ask for any more, and pods that are not tracked: a write's answer may come
// after the event that says so.
func (m *memory) prune(now time.Time, tracked map[types.UID]bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for q, b := range m.budgets {
		if now.Sub(b.last) > budgetsFor {
			delete(m.budgets, q)
		}
	}
	for uid := range m.pods {
		if !tracked[uid] {
			delete(m.pods, uid)
		}
	}
}
