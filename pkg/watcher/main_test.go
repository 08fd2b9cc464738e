package watcher_test

import (
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/airflow-requeue/airflow-requeue/internal/controlplane"
)

// servers is the control plane that the tests of this package share; each test has a namespace of its own.
var servers *controlplane.ControlPlane

func TestMain(m *testing.M) {
	os.Exit(func() int {
		var err error
		servers, err = controlplane.Start(context.Background(), controlplane.Options{})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		code := m.Run()
		if err := servers.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return code
	}())
}
