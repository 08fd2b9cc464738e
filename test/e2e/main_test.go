// Package e2e runs the programs as they ship, against a real API server.
package e2e

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
	bin     string // folder of the programs
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
	if shared.bin, err = os.MkdirTemp("", "airflow-requeue-e2e-"); err != nil {
		return 1, err
	}
	defer func() { _ = os.RemoveAll(shared.bin) }()
	for _, program := range []string{"watcher", "webhook"} {
		out, err := exec.Command("go", "build", "-o", filepath.Join(shared.bin, program), "../../cmd/"+program).CombinedOutput()
		if err != nil {
			return 1, fmt.Errorf("building %s: %w\n%s", program, err, out)
		}
	}
	if shared.servers, err = controlplane.Start(context.Background(), controlplane.Options{}); err != nil {
		return 1, err
	}
	defer func() {
		if stopErr := shared.servers.Stop(); err == nil {
			err = stopErr
		}
	}()
	return m.Run(), nil
}
