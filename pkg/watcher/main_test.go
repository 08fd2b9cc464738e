package watcher_test

import (
	"os"
	"testing"

	"github.com/airflow-requeue/airflow-requeue/internal/programs"
)

// shared has the control plane; each test has a namespace of its own. Tests wait for the API server more than they work:
// more of them at a time than there are processors.
var shared = programs.Shared{Parallel: 6}

func TestMain(m *testing.M) { os.Exit(shared.Main(m)) }
