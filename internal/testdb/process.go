package testdb

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/airflow-requeue/airflow-requeue/internal/child"
)

const (
	// nobody is an unprivileged user's and group's ID; PostgreSQL and MariaDB refuse to run as root.
	nobody       = 65534
	startTimeout = 30 * time.Second
	stopTimeout  = 10 * time.Second
)

// directory is a temporary directory that a server may enter and write to; testing's own are closed to other users.
func directory(tb testing.TB) string {
	tb.Helper()
	dir, err := os.MkdirTemp("", "testdb") //nolint:usetesting // see above
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = os.RemoveAll(dir) })
	give(tb, dir)
	return dir
}

// write makes a file that only the server can read, as PostgreSQL wants of a key.
func write(tb testing.TB, path, content string) string {
	tb.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		tb.Fatal(err)
	}
	give(tb, path)
	return path
}

func give(tb testing.TB, path string) {
	tb.Helper()
	if os.Geteuid() != 0 {
		return
	}
	if err := os.Chown(path, nobody, nobody); err != nil {
		tb.Fatal(err)
	}
}

// command ends with the test.
func command(tb testing.TB, dir, program string, args ...string) *exec.Cmd {
	tb.Helper()
	cmd := exec.CommandContext(tb.Context(), program, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGQUIT) } // at once, whoever is connected
	cmd.WaitDelay = stopTimeout
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "HOME="+dir)
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
	return cmd
}

// run runs a program to its end.
func run(tb testing.TB, dir, program string, args ...string) {
	tb.Helper()
	if output, err := command(tb, dir, program, args...).CombinedOutput(); err != nil {
		tb.Fatalf("running %s: %v\n%s", filepath.Base(program), err, output)
	}
}

// start runs a server until the test ends, and waits until it is ready.
func start(tb testing.TB, dir string, ready func() error, program string, args ...string) {
	tb.Helper()
	var log bytes.Buffer
	cmd := command(tb, dir, program, args...)
	cmd.Stdout, cmd.Stderr = &log, &log
	ended, err := child.Start(cmd)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { <-ended })

	err = ready()
	for deadline := time.Now().Add(startTimeout); err != nil && time.Now().Before(deadline); err = ready() {
		select {
		case <-ended:
			tb.Fatalf("%s ended:\n%s", filepath.Base(program), log.String())
		case <-time.After(20 * time.Millisecond):
		}
	}
	if err != nil {
		tb.Fatalf("%s is not ready: %v", filepath.Base(program), err)
	}
}
