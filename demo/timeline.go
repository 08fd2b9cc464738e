package main

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/airflow-requeue/airflow-requeue/internal/executor"
)

// settle is how long a line waits before it is printed: lines come from several watches, and belong in their order; and
// what the executor's watches made of the same event belongs beside it.
const settle = 250 * time.Millisecond

// What stands in the columns of the executor's watches.
const (
	nothing   = "nothing"
	failed    = string(executor.Failed)
	succeeded = string(executor.Succeeded)
)

// mark names one version of one pod: by it, different watches of the same event find together.
type mark struct {
	uid     types.UID
	version string
}

// line is one line of the timeline.
type line struct {
	at    time.Time
	actor string
	text  func() string // asked when it is printed: parts may come later
	mark  mark
	sights
	// ending says that the pod is about to be lost: that the executor saw nothing of it is to be said; unseen, that
	// neither would it have without us.
	ending, unseen bool
}

// sights are what the executor's watches made of an event: the real one, and one that overlooks the hold. Of an event
// that another watch sees as well, they go beside its line.
type sights struct {
	saw, without string
}

// timeline prints what happens, in its order.
type timeline struct {
	screen screen
	began  time.Time

	mu       sync.Mutex
	pending  []line
	printing sync.Mutex
}

func newTimeline(s screen, now time.Time) *timeline { return &timeline{screen: s, began: now} }

// say adds a line that tells of no event.
func (t *timeline) say(actor, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	t.add(line{at: time.Now(), actor: actor, text: func() string { return text }})
}

func (t *timeline) add(l line) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pending = append(t.pending, l)
}

// see adds what one of the executor's watches made of an event.
func (t *timeline) see(of mark, pod string, s sights) {
	t.add(line{at: time.Now(), actor: "executor", mark: of, sights: s, text: func() string { return "sees " + pod }})
}

// start prints lines as they settle, until stop is called; that prints the rest.
func (t *timeline) start() (stop func()) {
	done, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		ticker := time.NewTicker(settle / 5)
		defer ticker.Stop()
		for {
			select {
			case <-done:
				t.flush(time.Now())
				return
			case <-ticker.C:
				t.flush(time.Now().Add(-settle))
			}
		}
	}()
	return func() {
		close(done)
		<-stopped
	}
}

// flush prints all lines up to a time.
func (t *timeline) flush(until time.Time) {
	t.printing.Lock()
	defer t.printing.Unlock()
	for _, l := range t.settled(until) {
		t.print(l)
	}
}

func (t *timeline) settled(until time.Time) []line {
	t.mu.Lock()
	defer t.mu.Unlock()
	slices.SortStableFunc(t.pending, func(a, b line) int { return a.at.Compare(b.at) })
	var lines []line
	for len(t.pending) > 0 && !t.pending[0].at.After(until) {
		lines = append(lines, t.take())
	}
	return lines
}

// take takes the first line off, and with it all lines of the same event: those of the executor's watches as columns of
// the one that tells of the event.
func (t *timeline) take() line {
	first := t.pending[0]
	t.pending = t.pending[1:]
	if first.mark == (mark{}) {
		return first
	}
	t.pending = slices.DeleteFunc(t.pending, func(other line) bool {
		if other.mark != first.mark {
			return false
		}
		if first.sights != (sights{}) && other.sights == (sights{}) {
			first, other = other, first // the one with the text
		}
		first.saw += other.saw
		first.without += other.without
		return true
	})
	return first
}

func (t *timeline) print(l line) {
	if l.saw == "" && (l.ending || l.without == failed) {
		l.saw = nothing
	}
	if l.without == "" && l.unseen {
		l.without = nothing
	}
	width := textWidth
	if l.sights == (sights{}) { // there is more room
		width += len(gap) + sightWidth + len(gap) + otherWidth
	}
	as := plain
	switch l.actor {
	case "requeue", "webhook":
		as = cyan
	case "demo":
		as = dim
	}
	t.screen.row(
		cell{fmt.Sprintf("%.1fs", l.at.Sub(t.began).Seconds()), -timeWidth, dim},
		cell{l.actor, actorWidth, as},
		cell{cut(l.text(), width), textWidth, plain},
		cell{l.saw, sightWidth, sightStyle(l.saw)},
		cell{l.without, otherWidth, sightStyle(l.without)})
}

func sightStyle(sight string) style {
	switch sight {
	case failed:
		return red
	case succeeded:
		return green
	}
	return dim
}

// page prints what is no line, when all lines so far are printed.
func (t *timeline) page(show func(screen)) {
	time.Sleep(settle)
	t.flush(time.Now())
	t.printing.Lock()
	defer t.printing.Unlock()
	show(t.screen)
}

// heading begins the whole.
func heading(s screen) {
	s.printf("%s\n\n", s.paint("airflow-requeue: worker pods die before their tasks start, and Airflow never learns of it", bold))
	s.printf("Real: kube-apiserver and etcd, webhook (by TLS) and watcher as processes with rights of their own, pods as the\n" +
		"KubernetesExecutor makes them, rows with Airflow 3.3's columns (SQLite), the executor's rule on its own watch.\n" +
		"Played: the scheduler, the task processes, and the kubelets of node-a and node-b. At the right stands what the\n" +
		"executor's watch reported of an event, and what the same watch would have reported without us.\n\n")
}

// chapter begins a scenario, and names the columns.
func (t *timeline) chapter(number int, sc *scenario) {
	name := fmt.Sprintf("%d %s", number, sc.name)
	t.page(func(s screen) {
		s.printf("\n")
		s.row(
			cell{name, 0, bold},
			cell{sc.title, timeWidth + actorWidth + textWidth + len(gap) - len(name), plain},
			cell{"executor", sightWidth, dim},
			cell{"without us", otherWidth, dim})
	})
}

// Write says what a builder tells of its progress.
func (t *timeline) Write(p []byte) (int, error) {
	for text := range strings.Lines(string(p)) {
		t.say("demo", "%s", strings.TrimSpace(text))
	}
	return len(p), nil
}
