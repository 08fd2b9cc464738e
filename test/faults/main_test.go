// Package faults sweeps faults over everything that a watcher does: for each outcome there is, and for every request on
// the way to it, something goes wrong just there. The end must be the same as without. The watcher runs as it ships.
package faults

import (
	"context"
	"os"
	"testing"

	"github.com/airflow-requeue/airflow-requeue/internal/programs"
)

// shared is what the tests of this package have in common.
var shared = programs.Shared{Programs: []string{"watcher"}}

func TestMain(m *testing.M) {
	shared.Prepare = func(ctx context.Context) error { return refuseSomeReplacements(ctx, shared.Servers.Config()) }
	os.Exit(shared.Main(m))
}
