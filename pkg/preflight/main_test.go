package preflight

import (
	"context"
	"flag"
	"fmt"
	"os"
	"testing"

	"github.com/airflow-requeue/airflow-requeue/internal/controlplane"
)

// servers is the control plane that the tests of this package share; each has a namespace of its own.
var servers *controlplane.ControlPlane

func TestMain(m *testing.M) {
	os.Exit(func() int {
		flag.Parse()
		// RBAC is on, and each test has a user of its own.
		started, err := controlplane.Start(context.Background(), controlplane.Options{})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		servers = started
		code := m.Run()
		if err := servers.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return code
	}())
}
