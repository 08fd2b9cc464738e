package faults

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"k8s.io/client-go/rest"
)

// log keeps what watchers say, so that a play that fails can show what is about it.
type log struct {
	mu   sync.Mutex
	text strings.Builder
}

// Write keeps lines.
func (l *log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

// about returns the lines that name something.
func (l *log) about(name string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var lines []string
	for line := range strings.Lines(l.text.String()) {
		if strings.Contains(line, name) || strings.Contains(line, "lead") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "")
}

// watcher is one process.
type watcher struct {
	cmd   *exec.Cmd
	ended chan struct{}
}

func (w *watcher) signal(s syscall.Signal) { _ = w.cmd.Process.Signal(s) } // one that has ended takes none

// steady are the flags of a watcher that nothing is to take the Lease from, however slow the machine is.
func steady() []string { return []string{"--lease-duration=2m", "--lease-renew-deadline=90s"} }

// startWatcher runs a watcher against an API server, or against what stands before it, until the test ends.
func (s *stage) startWatcher(t *testing.T, config *rest.Config, flags ...string) *watcher {
	t.Helper()
	kubeconfig, err := shared.servers.Kubeconfig(config)
	assert.NoError(t, err)
	file := func(name string, content []byte) string {
		path := filepath.Join(t.TempDir(), name)
		assert.NoError(t, os.WriteFile(path, content, 0o600))
		return path
	}
	w := &watcher{ended: make(chan struct{})}
	w.cmd = exec.Command(shared.watcher, slices.Concat(s.WatcherFlags(), flags,
		[]string{"--kubeconfig=" + file("kubeconfig", kubeconfig), "--database-url-file=" + file("url", []byte(s.url))})...)
	w.cmd.Stdout, w.cmd.Stderr = s.log, s.log
	w.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if !assert.NoError(t, w.cmd.Start()) {
		close(w.ended)
		return w
	}
	go func() {
		defer close(w.ended)
		_ = w.cmd.Wait()
	}()
	t.Cleanup(func() {
		w.signal(syscall.SIGKILL)
		<-w.ended
	})
	return w
}

// keepWatcher runs a watcher, and another one whenever it ends, as a Deployment does. It returns the first.
func (s *stage) keepWatcher(t *testing.T, config *rest.Config, flags ...string) *watcher {
	t.Helper()
	first := s.startWatcher(t, config, flags...)
	var keeper sync.WaitGroup
	keeper.Go(func() {
		for w := first; ; w = s.startWatcher(t, config, flags...) {
			select {
			case <-t.Context().Done(): // the test is over
				return
			case <-w.ended:
			}
			if t.Context().Err() != nil {
				return
			}
		}
	})
	t.Cleanup(keeper.Wait)
	return first
}
