package watcher_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/airflow-requeue/airflow-requeue/internal/executor"
	"github.com/airflow-requeue/airflow-requeue/internal/history"
	"github.com/airflow-requeue/airflow-requeue/internal/kubelet"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// walk is a random walk through all that can happen: one action after another, chosen by a seed, of Airflow, of the
// kubelets, of people, of the clock and of what befalls the watchers. The watchers work at the same time, so the same
// seed is the same sequence of choices, and not the same run to the last bit: what a choice meets may differ.
type walk struct {
	*world
	random     *rand.Rand
	slots      []*slot
	schedulers []*scheduler // scheduler job n is the n-th
	runners    []*runner
	started    int // watchers
	release    chan error
	log        []string // what was done, as history's story has its lines
	breaches   []string

	mu    sync.Mutex
	lifts map[string]aLift // by pod
}

// action is what a step may be. It returns what was done; empty when it does not apply.
type action struct {
	weight int
	do     func(w *walk, s *slot, pick int) string
}

func actions() []action {
	anAlive := func(p *corev1.Pod) bool { return alive(p) && !requeue.Gated(p) }
	return []action{
		// Airflow
		{16, (*walk).queue}, {16, (*walk).launch}, {16, (*walk).handleResults}, {12, (*walk).schedulerGoesOn},
		{3, (*walk).revoke}, {1, (*walk).clearNotLaunched}, {3, (*walk).adopt}, {1, (*walk).changeByHand},
		{2, (*walk).startScheduler}, {1, (*walk).killScheduler},
		// the nodes
		{40, onPod(waitsToRun, goesOn)}, {12, onPod(containerRuns, wakes)}, {10, onPod(containerRuns, finishes)},
		{10, onPod(containerRuns, exits)},
		{6, onPod(func(p *corev1.Pod) bool { return !ended(p) && container(p).Terminated != nil }, endsAtLast)},
		{2, onPod(func(p *corev1.Pod) bool { return anAlive(p) && len(p.Status.ContainerStatuses) > 0 }, breaks)},
		{4, onPod(alive, isTaken)}, {1, onPod(ended, isTaken)}, {1, onPod(isDisrupted, isSpared)},
		{3, onPod(func(p *corev1.Pod) bool { return anAlive(p) && bound(p) }, isTakenByItsNode)},
		{4, onPod(func(p *corev1.Pod) bool { return anAlive(p) && bound(p) && len(p.Status.ContainerStatuses) == 0 }, isRejected)},
		{2, onPod(func(p *corev1.Pod) bool { return waitsToRun(p) && len(p.Status.ContainerStatuses) > 0 }, pullsInVain)},
		{12, onPod(func(p *corev1.Pod) bool { return leaving(p) && bound(p) }, isTerminated)},
		{2, onPod(func(p *corev1.Pod) bool { return leaving(p) && !bound(p) }, isCollected)},
		// the watchers
		{6, (*walk).startWatcher}, {1, disturb(stops)}, {3, disturb(isKilledAtAWrite)}, {4, disturb(meetsTrouble)},
		{3, disturb(stallsOrGoesOn)}, {1, disturb(losesOrRegainsTheDatabase)},
		{8, (*walk).timePasses}, {14, (*walk).catchUp},
	}
}

// errNotNow is an action's that does not apply.
var errNotNow = fmt.Errorf("not now")

func endsAtLast(w *walk, _ *slot, p *corev1.Pod, _ int) (string, error) {
	ended, err := w.kubelet.EndPod(w.ctx, p)
	return "is " + string(ended.Status.Phase) + " at last", err
}

func isSpared(w *walk, _ *slot, p *corev1.Pod, _ int) (string, error) {
	_, err := w.kubelet.Undisrupt(w.ctx, p)
	return "is not disrupted after all", err
}

// timePasses moves the clock, of the watchers and of all else.
func (w *walk) timePasses(_ *slot, pick int) string {
	d := []time.Duration{time.Second, time.Second, 3 * time.Second, 3 * time.Second, 10 * time.Second, 10 * time.Second, 35 * time.Second, 130 * time.Second}[pick%8]
	w.clock.forward(d)
	return fmt.Sprintf("%v pass", d)
}

// catchUp lets the watchers act, until nothing has happened for a moment.
func (w *walk) catchUp(*slot, int) string {
	for range 20 {
		select {
		case <-w.bell.Next():
		case <-time.After(20 * time.Millisecond):
			return "nothing happens"
		}
	}
	return "much happens"
}

func (w *walk) lifted(pod string, lift aLift) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lifts[pod] = lift
}

func (w *walk) lift(pod string) (aLift, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	lift, ok := w.lifts[pod]
	return lift, ok
}

func (w *walk) note(what string) {
	if what != "" {
		w.log = append(w.log, fmt.Sprintf("%s      --> %s\n", time.Now().Format("04:05.000"), what))
	}
}

func (w *walk) breach(s *slot, format string, args ...any) {
	w.breaches = append(w.breaches, s.id+": "+fmt.Sprintf(format, args...))
}

const (
	walkSeeds = 4
	walkSteps = 600
	// walkRests is how many steps lie between two moments in which all must come to rest.
	walkRests = 40
)

// TestARandomWalk walks a few seeds. One that failed is walked again by WALK_SEED; WALK_SEEDS of them, from there on, and
// WALK_STEPS make it long.
func TestARandomWalk(t *testing.T) {
	t.Parallel()
	number := func(name string, otherwise int) int {
		if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
			return n
		}
		return otherwise
	}
	first, seeds, steps := number("WALK_SEED", 1), number("WALK_SEEDS", walkSeeds), number("WALK_STEPS", walkSteps)
	if os.Getenv("WALK_SEED") != "" {
		seeds = number("WALK_SEEDS", 1)
	}
	for seed := first; seed < first+seeds; seed++ {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			t.Parallel()
			newWalk(t, seed).run(seed, steps)
		})
	}
}

func newWalk(t *testing.T, seed int) *walk {
	t.Helper()
	clock := newClock(t.Context())
	w := &walk{world: newWorldOn(t, withSameClock(shared.Servers.Config(), clock), clock), lifts: map[string]aLift{},
		random: rand.New(rand.NewPCG(uint64(seed), 0))}
	w.policy.ImagePullGrace = 30 * time.Second
	w.kubelet = kubelet.New(w.client, kubelet.Options{Namespace: w.namespace, Clock: clock, GarbageCollection: -1})
	w.history.LateAdoption()
	for i, retries := range []string{"1", "1", "2", "2", "3", "-1", "1", "2"} {
		s := &slot{id: strings.Repeat("t", i%2+1) + strconv.Itoa(i), processes: map[string]*taskProcess{}}
		s.task = executor.NewTask("dag", s.id, "manual__1", w.clock.Now().UTC())
		s.task.Annotations = map[string]string{requeue.AnnotationMaxRetries: retries, requeue.AnnotationBackoff: "5s"}
		if i%3 == 2 {
			s.task.Annotations[requeue.AnnotationStartDeadline] = "2m"
		}
		w.slots = append(w.slots, s)
	}
	w.newScheduler()
	w.newRunner()
	return w
}

func (w *walk) run(seed, steps int) {
	w.t.Helper()
	var deck []action
	for _, a := range actions() {
		deck = append(deck, slices.Repeat([]action{a}, a.weight)...)
	}
	for i := 1; i <= steps; i++ {
		a, first, pick := deck[w.random.IntN(len(deck))], w.random.IntN(len(w.slots)), w.random.IntN(1<<30)
		if w.random.IntN(300) == 0 {
			w.note(w.releaseEverything(nil, pick))
		}
		for j := range w.slots { // the first that it applies to
			if what := a.do(w, w.slots[(first+j)%len(w.slots)], pick); what != "" {
				w.note(what)
				break
			}
		}
		w.reap()
		if i%walkRests == 0 || i == steps {
			w.rest()
		}
		w.intact(seed, i)
	}
	if w.t.Failed() {
		return
	}
	w.t.Logf("seed %d: %d steps, %d of them did something; %d pods, %d replacements, %d watchers, %d schedulers", seed, steps, len(w.log),
		len(w.everyPod(func(*corev1.Pod) bool { return true })), len(w.everyPod(func(p *corev1.Pod) bool { return requeue.RequeueOf(p) != "" })),
		w.started, len(w.schedulers))
}

func (w *walk) everyPod(is func(*corev1.Pod) bool) map[string]bool {
	pods := map[string]bool{}
	for _, m := range w.history.Moments() {
		if is(m.Pod) {
			pods[string(m.Pod.UID)] = true
		}
	}
	return pods
}

// rest is a quiet point: no faults, no errand half done, every kubelet does its part, and time passes until all is as it
// must be.
func (w *walk) rest() {
	w.t.Helper()
	w.note("all is to come to rest")
	for _, r := range w.runners {
		r.atEase()
	}
	w.reap()
	if len(w.runners) == 0 {
		w.note(w.startWatcher(nil, 0))
	}
	if len(w.living()) == 0 {
		w.note(w.startScheduler(nil, 0))
	}
	var left []string
	var next time.Time
	for end := time.Now().Add(patience); ; {
		for _, s := range w.living() {
			w.note(s.goOn())
			w.note(w.handleAll(s))
		}
		w.kubeletsFinish()
		busy := slices.ContainsFunc(w.living(), func(s *scheduler) bool { return len(s.errand) > 0 })
		if !busy && slices.ContainsFunc(w.slots, w.orphaned) {
			w.note(w.adopt(nil, 0))
			busy = true
		}
		if left = w.restless(); len(left) == 0 && !busy && w.releaseUnderWay() == nil {
			return
		}
		if time.Now().After(end) {
			w.breaches = append(w.breaches, left...)
			return
		}
		if now := time.Now(); now.After(next) { // else the watchers have not had their time to act
			next = now.Add(50 * time.Millisecond)
			w.clock.forward(2 * time.Second)
		}
		select {
		case <-w.bell.Next():
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// intact ends the walk at the first promise that is broken, with all that there is to know about it.
func (w *walk) intact(seed, step int) {
	w.t.Helper()
	all := slices.Concat(w.breaches, w.history.AllBroken())
	if step%walkRests == 0 {
		all = append(all, breachesOf(w.history.Moments())...)
	}
	if len(all) == 0 {
		return
	}
	var story []string
	for _, s := range w.slots {
		if slices.ContainsFunc(all, func(b string) bool { return strings.Contains(b, s.id) }) {
			seen := history.Story(w.history.Moments(), func(p *corev1.Pod) bool { return requeue.SameTaskInstance(p, s.task.Key) })
			story = slices.AppendSeq(story, strings.Lines(seen))
			story = append(story, fmt.Sprintf("%s: its row is %+v\n", s.id, s.row))
		}
	}
	require.FailNow(w.t, "promises were broken", "seed %d, step %d: %s\nagain: WALK_SEED=%d WALK_STEPS=%d go test ./pkg/watcher -run TestARandomWalk -v\n%s",
		seed, step, strings.Join(all, "\n"), seed, step, strings.Join(interleaved(w.log, story), ""))
}

// interleaved is what was done and what was seen, in the order of time.
func interleaved(done, seen []string) []string {
	all := slices.Concat(done, seen)
	slices.SortStableFunc(all, func(a, b string) int { return strings.Compare(a[:9], b[:9]) })
	return all
}
