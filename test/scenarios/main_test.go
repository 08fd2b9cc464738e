// Package scenarios plays every row of docs/scenarios.md against a real kube-apiserver, with webhook and watcher as they
// ship. The tests are scheduler, kubelet and controllers; what is asserted is what the API server and an executor's watch
// show, never our own log.
package scenarios

import (
	"flag"
	"os"
	"testing"

	"github.com/airflow-requeue/airflow-requeue/internal/programs"
)

// shared is what the tests of this package have in common. Nearly all that they do is wait; but not all of them are to
// begin at once.
var shared = programs.Shared{Programs: []string{"watcher", "webhook"}, Parallel: 64}

// planted turns TestAPlantedFaultIsCaughtByItsRow on: it builds the programs once for each row.
var planted = flag.Bool("planted", false, "plant a fault for each row of the table and see its test fail")

func TestMain(m *testing.M) { os.Exit(shared.Main(m)) }
