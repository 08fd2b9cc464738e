package airflow_test

import (
	"context"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/airflow-requeue/airflow-requeue/internal/airflow"
)

// release is a version of Airflow that runs.
type release struct {
	*airflow.Process
	airflow.Environment
	metadata *airflow.Metadata
}

func TestAirflow(t *testing.T) {
	if !*itself {
		t.Skip("it installs Airflow from PyPI: make test-airflow, or give -airflow")
	}
	for _, version := range airflow.Versions() {
		t.Run(version.Airflow, func(t *testing.T) {
			of := begin(t, version)
			t.Run("with", func(t *testing.T) {
				i := newInstallation(t, of, 0)
				i.install()
				i.play(t, cases())
				if version.Requeues {
					i.play(t, ownRequeueCases())
				}
			})
			t.Run("adoption", func(t *testing.T) {
				i := newInstallation(t, of, 0)
				i.install()
				// One after the other: an adoption looks at all pods of the namespace.
				t.Run("a scheduler dies, and another adopts what it left", func(t *testing.T) { aSchedulerDies(newStage(t, i)) })
				t.Run("a scheduler dies at each write of a requeue", func(t *testing.T) { aSchedulerDiesAtEachWrite(newStage(t, i)) })
			})
			t.Run("in several namespaces", func(t *testing.T) {
				i := newInstallation(t, of, 1)
				i.install()
				i.play(t, namespaceCases())
			})
			t.Run("without", func(t *testing.T) {
				i := newInstallation(t, of, 0)
				i.play(t, casesWithout())
			})
		})
	}
}

// begin has a version of Airflow run until the test ends.
func begin(t *testing.T, version airflow.Version) *release {
	t.Helper()
	environment, err := airflow.Install(t.Context(), os.Stderr, version)
	require.NoError(t, err)
	metadata := environment.Metadata(t)
	dir, err := os.MkdirTemp("", "airflow-") //nolint:usetesting // a socket's path has to be short
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	process, err := environment.Start(context.WithoutCancel(t.Context()), dir)
	require.NoError(t, err)
	t.Cleanup(process.Stop)
	return &release{process, environment, metadata}
}

// play plays cases at the same time.
func (i *installation) play(t *testing.T, cases map[string]func(*stage)) {
	t.Run("cases", func(t *testing.T) {
		for name, play := range cases {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				play(newStage(t, i))
			})
		}
	})
}
