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
	out, err := exec.CommandContext(t.Context(), helm, "install", "blue", chart, "--dry-run=client", "--namespace=data").Output()
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
		"-n data rollout status deployment airflow-requeue-watcher airflow-requeue-webhook",
		"-n data logs deployment/airflow-requeue-watcher -c check",
		"-n data exec deployment/airflow-requeue-watcher -- /proc/1/exe check",
		"-n data get events --field-selector reportingComponent=airflow-requeue-watcher",
	}, commands)
}
