package outages

import (
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"math"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// process is a run of one of the programs, with all that it logs.
type process struct {
	t       *testing.T
	program string
	args    []string
	metrics string // address of /metrics
	stdout  bytes.Buffer
	log     logs
	cmd     *exec.Cmd
	ended   chan struct{} // closed at its end
}

// start runs one of the programs until the test ends it, or ends.
func start(t *testing.T, program string, args ...string) *process {
	t.Helper()
	p := &process{t: t, program: program, args: args, metrics: freeAddress(t), ended: make(chan struct{})}
	if len(args) == 0 || args[0] != "release" {
		args = append(args, "--metrics-listen="+p.metrics)
	}
	p.cmd = exec.Command(filepath.Join(shared.bin, program), append(args, "--log-format=json")...)
	p.cmd.Stdout, p.cmd.Stderr = io.MultiWriter(&p.stdout, t.Output()), io.MultiWriter(&p.log, t.Output())
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if !assert.NoError(t, p.cmd.Start()) {
		close(p.ended)
		return p
	}
	go func() {
		defer close(p.ended)
		_ = p.cmd.Wait()
	}()
	t.Cleanup(p.kill)
	return p
}

// again starts a program that has ended once more, as it was started before.
func again(p *process) *process { return start(p.t, p.program, p.args...) }

// kill is kill -9. A process that has ended stays as it is.
func (p *process) kill() {
	p.signal(syscall.SIGKILL)
	<-p.ended
}

// end waits for the process to end by itself, and returns its exit code.
func (p *process) end() int {
	<-p.ended
	return p.cmd.ProcessState.ExitCode()
}

func (p *process) hasEnded() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

func (p *process) signal(s syscall.Signal) {
	if !p.hasEnded() {
		_ = p.cmd.Process.Signal(s)
	}
}

// metric is the sum of a metric's samples that have all the labels, each as `name="value"`; NaN while it can't be read.
func (p *process) metric(name string, labels ...string) float64 {
	response, err := http.Get("http://" + p.metrics + "/metrics")
	if err != nil {
		return math.NaN()
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return math.NaN()
	}
	sum := 0.0
	for line := range strings.Lines(string(body)) {
		sample, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		have, _, _ := strings.Cut(sample, "{")
		if !ok || have != name || slices.ContainsFunc(labels, func(l string) bool { return !strings.Contains(sample, l) }) {
			continue
		}
		n, err := strconv.ParseFloat(value, 64)
		if !assert.NoError(p.t, err) {
			return math.NaN()
		}
		sum += n
	}
	return sum
}

// logs are what a process has logged.
type logs struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.Write(p)
}

func (l *logs) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.String()
}

// messages counts the lines by their message, and by the state where they name one; a line that is no record of the
// logger's counts as it is.
func (l *logs) messages() map[string]int {
	n := map[string]int{}
	for line := range strings.Lines(l.text()) {
		var record struct{ Msg, State string }
		if json.Unmarshal([]byte(line), &record) != nil {
			record.Msg = strings.TrimSpace(line)
		}
		if record.State != "" {
			record.Msg += ": " + record.State
		}
		n[record.Msg]++
	}
	return n
}

// aboutPods are the messages of which each pod has its own.
func aboutPods() []string {
	return []string{"pod replaced", "pod reported as failed", "pod deleted", "pod discarded", "pod let go", "pod released"}
}

// sparing says that the process has logged what changed and not what it tried: no message more often than twice, but
// for those of which each pod has its own.
func (p *process) sparing() {
	p.t.Helper()
	p.spares(p.t)
}

func (p *process) spares(t *testing.T) {
	t.Helper()
	messages := p.log.messages()
	for _, m := range slices.Sorted(maps.Keys(messages)) {
		if !slices.Contains(aboutPods(), m) {
			assert.LessOrEqual(t, messages[m], 2, "lines %q", m)
		}
	}
}

// logged says how often the process has logged each of the messages.
func (p *process) logged(times int, messages ...string) {
	p.t.Helper()
	all := p.log.messages()
	for _, m := range messages {
		assert.Equal(p.t, times, all[m], "lines %q", m)
	}
}

// freeAddress is one that nobody listens on; whoever takes it meanwhile fails the test.
func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, listener.Close())
	return listener.Addr().String()
}
