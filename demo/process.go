package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/airflow-requeue/airflow-requeue/internal/child"
)

// stopTimeout is what a process may take to end by itself.
const stopTimeout = 10 * time.Second

// process is a program that runs beside the demo, with its output in a log file. It is in a process group of its own,
// so that Ctrl-C reaches the demo alone, which ends all things in their order.
type process struct {
	name  string
	log   string
	ended <-chan struct{} // closed when it is gone
}

// start runs a program until the context ends, when it is asked to end too. Should it end before, early is told why.
func start(ctx context.Context, name, program, log string, args []string, early func(error)) (*process, error) {
	output, err := os.Create(log)
	if err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	defer output.Close() // the process has its own
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Stdout, cmd.Stderr = output, output
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stopTimeout
	ended, err := child.Start(cmd)
	if err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	p := &process{name: name, log: log, ended: ended}
	go func() {
		<-ended
		if ctx.Err() == nil {
			early(fmt.Errorf("%s has ended: %s: %s", name, cmd.ProcessState, p.lastWords()))
		}
	}()
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
