// Package scenarios plays every row of docs/scenarios.md against a real kube-apiserver, with webhook and watcher as they
// ship. The tests are scheduler, kubelet and controllers; what is asserted is what the API server and an executor's watch
// show, never our own log.
package scenarios

import (
	"context"
	"flag"
	"fmt"
	"os"
	"testing"

	"github.com/airflow-requeue/airflow-requeue/internal/controlplane"
)

// shared is what the tests of this package have in common.
var shared struct {
	servers  *controlplane.ControlPlane
	programs programs
}

// planted turns TestAPlantedFaultIsCaughtByItsRow on: it builds the programs once for each row.
var planted = flag.Bool("planted", false, "plant a fault for each row of the table and see its test fail")

func TestMain(m *testing.M) {
	flag.Parse()
	// Nearly all that these tests do is wait; but not all of them are to begin at once.
	if err := flag.Set("test.parallel", "64"); err != nil {
		panic(err)
	}
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	dir, err := os.MkdirTemp("", "airflow-requeue-scenarios-")
	if err != nil {
		return 1, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if shared.programs, err = build(context.Background(), dir, nil, "watcher", "webhook"); err != nil {
		return 1, err
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
