package airflow

import (
	"bufio"
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

//go:embed driver.py
var driver []byte

// Process has imported Airflow, which takes seconds, and forks schedulers, which takes moments.
type Process struct {
	cmd    *exec.Cmd
	socket string
	said   bytes.Buffer
}

// Start starts a process of a version. It writes to the folder, which must not be the cache, and ends with the context.
func (e Environment) Start(ctx context.Context, dir string) (*Process, error) {
	script := filepath.Join(dir, "driver.py")
	if err := os.WriteFile(script, driver, 0o600); err != nil {
		return nil, fmt.Errorf("starting Airflow %s: %w", e.Airflow, err)
	}
	p := &Process{socket: filepath.Join(dir, "socket")}
	p.cmd = exec.CommandContext(ctx, e.python(), script, p.socket)
	p.cmd.Env = append(os.Environ(), "AIRFLOW_HOME="+filepath.Join(dir, "home"), "AIRFLOW__CORE__LOAD_EXAMPLES=False",
		"AIRFLOW__CORE__EXECUTOR=KubernetesExecutor", "_AIRFLOW__SKIP_DATABASE_EXECUTOR_COMPATIBILITY_CHECK=1")
	p.cmd.Stderr = &p.said
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("starting Airflow %s: %w", e.Airflow, err)
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting Airflow %s: %w", e.Airflow, err)
	}
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		if lines.Text() == "ready" {
			go func() { _, _ = io.Copy(io.Discard, stdout) }()
			return p, nil
		}
	}
	err = errors.Join(lines.Err(), p.cmd.Wait())
	return nil, fmt.Errorf("starting Airflow %s: %w\n%s", e.Airflow, err, p.said.String())
}

// Stop ends the process. Its schedulers go on until they are killed.
func (p *Process) Stop() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait() // killed is what it was
}

// Settings are Airflow's configuration for one scheduler.
type Settings struct {
	// Options are Airflow's own, as "section.name": value.
	Options map[string]string
	// Log is the file that takes all that the scheduler logs.
	Log string
}

// Fork forks a process of its own, which may be a scheduler, a task process, or both.
func (p *Process) Fork(ctx context.Context, settings Settings) (*Scheduler, error) {
	connection, err := (&net.Dialer{}).DialContext(ctx, "unix", p.socket)
	if err != nil {
		return nil, fmt.Errorf("forking a scheduler: %w", err)
	}
	s := &Scheduler{connection: connection, answers: bufio.NewReader(connection)}
	environment := map[string]string{}
	for option, value := range settings.Options {
		environment["AIRFLOW__"+strings.ToUpper(strings.ReplaceAll(option, ".", "__"))] = value
	}
	if err := s.do(ctx, "configure", arguments{"environment": environment, "log": settings.Log}, &s.pid); err != nil {
		_ = connection.Close()
		return nil, err
	}
	return s, nil
}
