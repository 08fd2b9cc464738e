// Package whole_test runs the whole Airflow once: its scheduler, DAG processor and API server, and its task processes, on
// PostgreSQL and a real API server, with webhook and watcher as they ship. Nothing is played but the kubelets' statuses.
package whole_test

import (
	"flag"
	"os"
	"testing"

	"github.com/airflow-requeue/airflow-requeue/internal/programs"
)

// shared is what both halves have in common.
var shared = programs.Shared{Programs: []string{"watcher", "webhook"}}

// whole turns the test on: it installs Airflow from PyPI, and takes minutes.
var whole = flag.Bool("whole", false, "run the whole Airflow, which is installed from PyPI: make demo-airflow")

func TestMain(m *testing.M) {
	flag.Parse()
	if !*whole {
		os.Exit(m.Run())
	}
	os.Exit(shared.Main(m))
}
