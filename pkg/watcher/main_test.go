package watcher_test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"testing"

	"github.com/airflow-requeue/airflow-requeue/internal/controlplane"
)

// servers is the control plane that the tests of this package share; each test has a namespace of its own.
var servers *controlplane.ControlPlane

func TestMain(m *testing.M) {
	os.Exit(func() int {
		flag.Parse()
		// Tests wait for the API server more than they work: more of them at a time than there are processors.
		if err := flag.Set("test.parallel", "6"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
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
