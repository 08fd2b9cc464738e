// Package outages takes away, one after the other, what the programs need, while Airflow goes on submitting pods and
// pods go on dying: the programs are the real ones, and so are the API server and PostgreSQL.
package outages

import (
	"os"
	"testing"

	"github.com/airflow-requeue/airflow-requeue/internal/programs"
)

// shared is what the tests of this package have in common. Outages are mostly waited for: more tests at a time than there
// are processors.
var shared = programs.Shared{Programs: []string{"watcher", "webhook"}, Parallel: 8}

func TestMain(m *testing.M) { os.Exit(shared.Main(m)) }
