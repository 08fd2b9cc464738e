package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// stopTimeout is what a process may take to end by itself.
const stopTimeout = 10 * time.Second

// process is a program that runs beside the demo, with its output in a log file. It is in a process group of its own,
// so that Ctrl-C reaches the demo alone, which ends all things in their order.
type process struct {
	name  string
	log   string
	ended chan struct{} // closed when it is gone
}

// start runs a program until the context ends, when it is asked to end too. Should it end before, early is told why.
func start(ctx context.Context, name, program, log string, args []string, early func(error)) (*process, error) {
	output, err := os.Create(log)
	if err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	defer output.Close() // the process has its own
	p := &process{name: name, log: log, ended: make(chan struct{})}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Stdout, cmd.Stderr = output, output
	cmd.SysProcAttr = dieWithParent()
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stopTimeout
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // the process dies with this thread: see dieWithParent
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		defer close(p.ended)
		cause := cmd.Wait()
		if cause == nil {
			cause = errors.New("exit status 0")
		}
		if ctx.Err() == nil {
			early(fmt.Errorf("%s has ended: %w: %s", name, cause, p.lastWords()))
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	return p, nil
}

// lastWords is the last line of the process' log.
func (p *process) lastWords() string {
	content, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	lines := bytes.Split(bytes.TrimSpace(content), []byte("\n"))
	return string(lines[len(lines)-1])
}
