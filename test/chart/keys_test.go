package chart_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// makesKeys reports whether the watcher makes signing keys, as the chart has it do: the branch that brings it is not merged yet. When
// it is, this file goes, with what it guards.
func makesKeys(t testing.TB) bool {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), built["watcher"], "--help").Output()
	require.NoError(t, err)
	return strings.Contains(string(out), "--signing-keys-secret")
}

// brought are values with which keys are brought along, where the watcher makes none.
func brought(t testing.TB, secret string) []string {
	t.Helper()
	if makesKeys(t) {
		return nil
	}
	return []string{"--set=signingKeys.secret=" + secret}
}

// manifestsHaveKeys reports whether the manifests have the Secret for them.
func manifestsHaveKeys(t *testing.T) bool {
	t.Helper()
	_, err := os.Stat(filepath.Join(folder(t), "base", "signing-keys.yaml"))
	return err == nil
}
