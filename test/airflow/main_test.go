// Package airflow_test holds airflow-requeue against Airflow itself, old and new: its own KubernetesExecutor and the parts
// of its scheduler that adopt and revoke, from PyPI, on a metadata database that its own migration made. API server,
// webhook and watcher are the real ones; kubelets and task processes are played.
package airflow_test

import (
	"flag"
	"os"
	"testing"

	"github.com/airflow-requeue/airflow-requeue/internal/programs"
)

// root is the checkout, seen from this folder.
const root = "../.."

// shared is what the tests of this package have in common.
var shared = programs.Shared{Parallel: 24, Programs: []string{"watcher", "webhook"}}

// itself turns the tests on: they install Airflow from PyPI.
var itself = flag.Bool("airflow", false, "run against Airflow itself, which is installed from PyPI: make test-airflow")

func TestMain(m *testing.M) {
	flag.Parse()
	if !*itself {
		os.Exit(m.Run())
	}
	shared.Prepare = serveLogs
	os.Exit(shared.Main(m))
}
