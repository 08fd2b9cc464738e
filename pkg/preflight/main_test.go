package preflight

import (
	"os"
	"testing"

	"github.com/airflow-requeue/airflow-requeue/internal/programs"
)

// shared has the control plane, with RBAC on; each test has a namespace of its own.
var shared = programs.Shared{Parallel: 6}

func TestMain(m *testing.M) { os.Exit(shared.Main(m)) }
