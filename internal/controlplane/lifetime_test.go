package controlplane

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const (
	pollInterval = 10 * time.Millisecond
	// childVariable makes the test binary a process that starts a control plane and waits to be killed.
	childVariable = "AIRFLOW_REQUEUE_TEST_CHILD"
)

func TestStopLeavesNoProcessAndNoFile(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	c, err := Start(t.Context(), Options{Progress: t.Output()})
	require.NoError(t, err)
	groups := processGroups(t, c.runtime)
	for name, group := range groups {
		require.True(t, isAlive(t, group), name)
	}

	require.NoError(t, c.Stop())

	for name, group := range groups {
		assert.Eventually(t, func() bool { return !isAlive(t, group) }, serverTimeout, pollInterval, name)
	}
	assert.Empty(t, entries(t, os.TempDir()))
	assert.NoError(t, c.Stop(), "a second time")
}

func TestServersDieWithAKilledProcess(t *testing.T) {
	temp := t.TempDir()
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestChildToBeKilled$", "-test.v")
	child.Env = append(os.Environ(), childVariable+"=1", "TMPDIR="+temp)
	child.Stderr = t.Output()
	stdout, err := child.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, child.Start())
	addresses := announced(t, stdout)
	for _, address := range addresses {
		require.True(t, answers(t, address), address)
	}

	require.NoError(t, child.Process.Kill())
	require.Error(t, child.Wait())

	for _, address := range addresses {
		assert.Eventually(t, func() bool { return !answers(t, address) }, serverTimeout, pollInterval, address)
	}
	assert.Eventually(t, func() bool { return len(entries(t, temp)) == 0 }, serverTimeout, pollInterval, "%v", entries(t, temp))
}

// TestChildToBeKilled is the process that TestServersDieWithAKilledProcess kills.
func TestChildToBeKilled(t *testing.T) {
	if os.Getenv(childVariable) == "" {
		t.Skip("no parent that kills it")
	}
	c, err := Start(t.Context(), Options{})
	require.NoError(t, err)
	server, err := url.Parse(c.Config().Host)
	require.NoError(t, err)
	fmt.Printf("serving %s %s\n", server.Host, c.servers.Etcd.URL.Host)
	<-t.Context().Done() // never: the parent kills this process
}

func TestACancelledStartEndsWhatItStarted(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	t.Setenv(assetsVariable, fakeAssets(t, `echo "started"; exec sleep 600`))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()

	_, err := Start(ctx, Options{Log: onWrite(cancel)})

	require.ErrorIs(t, err, context.Canceled)
	assert.Empty(t, entries(t, os.TempDir()))
}

func TestAFailedStartShowsTheServersLastWords(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	t.Setenv(assetsVariable, fakeAssets(t, `echo "no room for $(basename "$0")" >&2; exit 1`))

	_, err := Start(t.Context(), Options{})

	require.ErrorContains(t, err, "the servers' last words:\nno room for etcd")
	assert.Empty(t, entries(t, os.TempDir()))
}

// onWrite is a writer that calls a function when something is written to it.
type onWrite func()

func (f onWrite) Write(p []byte) (int, error) {
	f()
	return len(p), nil
}

// announced reads the addresses from a child's line "serving ADDRESS ADDRESS".
func announced(t *testing.T, stdout io.Reader) []string {
	t.Helper()
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		if addresses, ok := strings.CutPrefix(lines.Text(), "serving "); ok {
			return strings.Fields(addresses)
		}
		t.Log(lines.Text())
	}
	require.FailNow(t, "the child did not start a control plane")
	return nil
}

func answers(t *testing.T, address string) bool {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", address)
	if err != nil {
		return false
	}
	require.NoError(t, conn.Close())
	return true
}

// processGroups maps each server to its process group, which has the number of the server's process.
func processGroups(t *testing.T, dir *runtimeDir) map[string]int {
	t.Helper()
	groups := map[string]int{}
	for _, name := range servers().Binaries {
		content, err := os.ReadFile(filepath.Join(dir.path, name+".pid"))
		require.NoError(t, err)
		groups[name], err = strconv.Atoi(strings.TrimSpace(string(content)))
		require.NoError(t, err)
	}
	return groups
}

// isAlive says whether a process group still has a process. Where there is a /proc it leaves out the
// dead that nobody has waited for: in a container the first process may be one that never does.
func isAlive(t *testing.T, group int) bool {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	require.NoError(t, err)
	if len(stats) == 0 {
		return syscall.Kill(-group, 0) == nil
	}
	for _, stat := range stats {
		content, err := os.ReadFile(stat)
		if err != nil {
			continue // gone since
		}
		_, afterName, _ := strings.Cut(string(content), ") ")
		fields := strings.Fields(afterName) // state, parent, group
		if len(fields) > 2 && fields[2] == strconv.Itoa(group) && fields[0] != "Z" {
			return true
		}
	}
	return false
}

func entries(t *testing.T, dir string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, "*"))
	require.NoError(t, err)
	return found
}
