// Package outages takes away, one after the other, what the programs need, while Airflow goes on submitting pods and
// pods go on dying: the programs are the real ones, and so are the API server and PostgreSQL.
package outages

import (
	"context"
	"flag"
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
	flag.Parse()
	// Outages are mostly waited for: more tests at a time than there are processors.
	if err := flag.Set("test.parallel", "8"); err != nil {
		return 1, err
	}
	if shared.bin, err = os.MkdirTemp("", "airflow-requeue-outages-"); err != nil {
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
