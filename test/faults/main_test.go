// Package faults sweeps faults over everything that a watcher does: for each outcome there is, and for every request on
// the way to it, something goes wrong just there. The end must be the same as without. The watcher runs as it ships.
package faults

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/airflow-requeue/airflow-requeue/internal/controlplane"
)

// shared is what the tests of this package have in common.
var shared struct {
	servers *controlplane.ControlPlane
	watcher string // the program
}

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	dir, err := os.MkdirTemp("", "airflow-requeue-faults-")
	if err != nil {
		return 1, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	shared.watcher = filepath.Join(dir, "watcher")
	if out, err := exec.Command("go", "build", "-o", shared.watcher, "../../cmd/watcher").CombinedOutput(); err != nil {
		return 1, fmt.Errorf("building the watcher: %w\n%s", err, out)
	}
	if shared.servers, err = controlplane.Start(context.Background(), controlplane.Options{}); err != nil {
		return 1, err
	}
	defer func() {
		if stopErr := shared.servers.Stop(); err == nil {
			err = stopErr
		}
	}()
	if err := refuseSomeReplacements(context.Background(), shared.servers.Config()); err != nil {
		return 1, err
	}
	return m.Run(), nil
}
