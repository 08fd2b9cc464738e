package chart_test

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestTheCommandsOfTheNotesAreOfTheInstallation: those that ../../README.md has too are run by its own test.
func TestTheCommandsOfTheNotesAreOfTheInstallation(t *testing.T) {
	t.Parallel()
	for values, check := range map[string]string{
		"":                                  "--installation=blue",
		"airflow.workerNamespaces={etl,ml}": "--installation=blue --namespace=etl --namespace=ml",
	} {
		t.Run(values, func(t *testing.T) {
			out, err := exec.CommandContext(t.Context(), helm, "install", "blue", chart, "--dry-run=client", "--namespace=airflow", "--set="+values).Output()
			require.NoError(t, err)
			_, notes, ok := strings.Cut(string(out), "NOTES:\n")
			require.True(t, ok)
			var commands []string
			for line := range strings.Lines(notes) {
				if command, ok := strings.CutPrefix(strings.TrimSpace(line), "kubectl "); ok {
					commands = append(commands, command)
				}
			}
			assert.Equal(t, []string{
				"-n airflow rollout status deployment airflow-requeue-watcher airflow-requeue-webhook",
				"-n airflow logs deployment/airflow-requeue-watcher -c check",
				"-n airflow exec deployment/airflow-requeue-watcher -- /proc/1/exe check " + check,
				"-n airflow get events --field-selector reportingComponent=airflow-requeue-watcher",
			}, commands)
		})
	}
}
