package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// scope is a testing.TB without `go test`: the servers and programs that are measured come from the harness of the tests,
// which takes one. What fails ends it, and what it started ends with it.
type scope struct {
	testing.TB // nil, for the method that nobody outside testing can have; what is called of it is all here

	ctx context.Context

	mu      sync.Mutex
	said    []string
	failed  bool
	cleanup []func()
}

// Scoped runs f in a scope of its own. Its error is all that failed.
func Scoped(ctx context.Context, f func(testing.TB)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := &scope{ctx: ctx}
	done := make(chan struct{})
	go func() { // FailNow ends its goroutine
		defer close(done)
		defer s.end(cancel)
		f(s)
	}()
	<-done
	if s.failed {
		return errors.New(strings.Join(s.said, "\n"))
	}
	return nil
}

func (s *scope) end(cancel context.CancelFunc) {
	cancel() // before the cleanups, as testing does
	for {
		s.mu.Lock()
		n := len(s.cleanup)
		if n == 0 {
			s.mu.Unlock()
			return
		}
		last := s.cleanup[n-1]
		s.cleanup = s.cleanup[:n-1]
		s.mu.Unlock()
		last()
	}
}

// Context ends before the cleanups.
func (s *scope) Context() context.Context { return s.ctx }

// Cleanup has f called at the end, the last one first.
func (s *scope) Cleanup(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cleanup = append(s.cleanup, f)
}

// TempDir is a folder that goes at the end.
func (s *scope) TempDir() string {
	dir, err := os.MkdirTemp("", "airflow-requeue-bench-")
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// Helper has nothing to do without line numbers.
func (*scope) Helper() {}

// Name is what messages may begin with.
func (*scope) Name() string { return "bench" }

// Failed reports whether anything has failed.
func (s *scope) Failed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed
}

// Fail is for a failure that is told by others.
func (s *scope) Fail() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failed = true
}

// FailNow ends the scope.
func (s *scope) FailNow() {
	s.Fail()
	runtime.Goexit()
}

// Logf is told only when something fails.
func (s *scope) Logf(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.said = append(s.said, strings.TrimSpace(fmt.Sprintf(format, args...)))
}

// Log is told only when something fails.
func (s *scope) Log(args ...any) { s.Logf("%s", fmt.Sprint(args...)) }

// Errorf fails, and goes on.
func (s *scope) Errorf(format string, args ...any) {
	s.Logf(format, args...)
	s.Fail()
}

// Error fails, and goes on.
func (s *scope) Error(args ...any) { s.Errorf("%s", fmt.Sprint(args...)) }

// Fatalf fails, and ends the scope.
func (s *scope) Fatalf(format string, args ...any) {
	s.Logf(format, args...)
	s.FailNow()
}

// Fatal fails, and ends the scope.
func (s *scope) Fatal(args ...any) { s.Fatalf("%s", fmt.Sprint(args...)) }

// Skipf fails as well: what is not measured is no measurement.
func (s *scope) Skipf(format string, args ...any) { s.Fatalf(format, args...) }

var _ testing.TB = (*scope)(nil)
