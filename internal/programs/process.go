package programs

import (
	"context"
	"io"
	"os/exec"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/airflow-requeue/airflow-requeue/internal/child"
)

// Process is a run of a program.
type Process struct {
	// Log is what it says, and may be what others say as well; Stdout is the part that it writes there.
	Log    *Log
	Stdout Log
	// Ended is closed at its end.
	Ended <-chan struct{}

	t   testing.TB
	cmd *exec.Cmd
}

// Start runs the program at a path until it ends, is killed, or the test ends. It may be called from any goroutine: a
// program that can't be run fails the test and has ended.
func Start(t testing.TB, log *Log, program string, args ...string) *Process {
	t.Helper()
	return StartIn(t, log, nil, program, args...)
}

// StartIn is Start with an environment, as exec.Cmd takes it.
func StartIn(t testing.TB, log *Log, environment []string, program string, args ...string) *Process {
	t.Helper()
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), program, args...) // it is the cleanup that ends it
	cmd.Env = environment
	p := &Process{Log: log, t: t, cmd: cmd}
	cmd.Stdout, cmd.Stderr = io.MultiWriter(&p.Stdout, log), log
	ended, err := child.Start(cmd)
	p.Ended = ended
	if !assert.NoError(t, err) {
		<-ended
		return p
	}
	t.Cleanup(p.Kill)
	return p
}

// Keep starts a program again whenever it has ended, until the test ends: a Deployment does so.
func (p *Process) Keep(again func() *Process) {
	var mu sync.Mutex
	var keeper sync.WaitGroup
	last, over := p, false
	keeper.Go(func() {
		for p := p; ; {
			<-p.Ended
			mu.Lock()
			if over {
				mu.Unlock()
				return
			}
			p = again()
			last = p
			mu.Unlock()
		}
	})
	p.t.Cleanup(func() {
		mu.Lock()
		over = true
		mu.Unlock()
		last.Kill()
		keeper.Wait()
	})
}

// Kill is kill -9; it returns when the process has ended.
func (p *Process) Kill() {
	p.Signal(syscall.SIGKILL)
	<-p.Ended
}

// Stop is what the kubelet does to the program's pod: SIGTERM. It returns when the process has ended.
func (p *Process) Stop() {
	p.Signal(syscall.SIGTERM)
	<-p.Ended
}

// Signal sends a signal. A process that has ended takes none.
func (p *Process) Signal(s syscall.Signal) {
	if !p.HasEnded() {
		_ = p.cmd.Process.Signal(s)
	}
}

// Exit waits for the process to end by itself, and returns its exit code.
func (p *Process) Exit() int {
	<-p.Ended
	return p.cmd.ProcessState.ExitCode()
}

// HasEnded reports whether the process has ended.
func (p *Process) HasEnded() bool {
	select {
	case <-p.Ended:
		return true
	default:
		return false
	}
}

// PID is its process ID.
func (p *Process) PID() int { return p.cmd.Process.Pid }
