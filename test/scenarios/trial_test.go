package scenarios

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// trial is a test that keeps its failure to itself: what is played on planted programs is to fail. It does what testing
// does as far as the cases use it.
type trial struct {
	testing.TB // for directories and names
	ctx        context.Context
	cancel     context.CancelFunc

	mu       sync.Mutex
	failed   bool
	lines    []string
	cleanups []func()
}

func newTrial(t *testing.T) *trial {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	return &trial{TB: t, ctx: ctx, cancel: cancel}
}

// run plays, in a goroutine that a failure may end, and cleans up after it.
func (t *trial) run(play func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		play()
	}()
	<-done
	t.cancel()
	for {
		t.mu.Lock()
		n := len(t.cleanups)
		if n == 0 {
			t.mu.Unlock()
			return
		}
		last := t.cleanups[n-1]
		t.cleanups = t.cleanups[:n-1]
		t.mu.Unlock()
		last()
	}
}

// said is how the trial failed first, without the trace.
func (t *trial) said() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.lines) == 0 {
		return ""
	}
	_, said, _ := strings.Cut(t.lines[0], "Error:")
	said, about, _ := strings.Cut(said, "Test:")
	_, about, _ = strings.Cut(about, "Messages:")
	return strings.Join(strings.Fields(fmt.Sprintf("%.300s %s", said, about)), " ")
}

func (t *trial) Context() context.Context { return t.ctx }

func (t *trial) Cleanup(f func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cleanups = append(t.cleanups, f)
}

func (t *trial) Errorf(format string, args ...any) { t.fail(fmt.Sprintf(format, args...)) }

func (t *trial) Error(args ...any) { t.fail(fmt.Sprintln(args...)) }

func (t *trial) Fail() { t.fail("it failed") }

func (t *trial) Fatalf(format string, args ...any) {
	t.Errorf(format, args...)
	t.FailNow()
}

func (t *trial) Fatal(args ...any) {
	t.Error(args...)
	t.FailNow()
}

func (t *trial) FailNow() {
	t.mu.Lock()
	t.failed = true
	t.mu.Unlock()
	runtime.Goexit()
}

func (t *trial) Failed() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.failed
}

func (t *trial) Log(...any) {}

func (t *trial) Logf(string, ...any) {}

func (t *trial) Helper() {}

func (t *trial) fail(line string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.failed = true
	t.lines = append(t.lines, line)
}
