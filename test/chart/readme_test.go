package chart_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/airflow-requeue/airflow-requeue/internal/programs"
	"github.com/airflow-requeue/airflow-requeue/internal/world"
)

// TestTheREADMEsCommandsLeadToTheFirstRequeue runs what ../../README.md says under Install, as it says it, by bash with helm
// and kubectl in PATH. The test's namespace stands for airflow, and the checkout's chart for the registry's. What runs in a
// pod needs a kubelet: the same check runs as the watcher's init step, whose words are read.
func TestTheREADMEsCommandsLeadToTheFirstRequeue(t *testing.T) {
	a := newAirflow(t)
	blocks := a.blocks("## Install")
	require.Len(t, blocks, 3) // the last asks the public registry
	install, uninstall := blocks[0], blocks[1]
	require.Len(t, install, 4)
	require.Len(t, uninstall, 2)

	a.shell(install[0])
	assert.Contains(t, a.shell(install[1]), `deployment "airflow-requeue-watcher" successfully rolled out`)
	require.Equal(t, "kubectl -n "+a.Namespace+" exec deployment/airflow-requeue-watcher -- /proc/1/exe check", install[2])
	assert.Contains(t, a.played.Log.String(), "ok    rights             all that a watcher needs")
	programs.UntilStamping(t, a.scheduler)
	pod := a.held("first")
	a.reject(pod)
	a.untilReplaced(pod)
	require.Eventually(t, func() bool { return strings.Contains(a.shell(install[3]), "pod/"+pod.Name) }, world.Patience, time.Second)
	assert.Contains(t, a.shell(install[3]), "KubeletRejected")

	a.shell(uninstall[0])
	assert.Contains(t, a.shell(uninstall[1]), fmt.Sprintf("pod %q deleted", pod.Name), "the one that was replaced")
	everything := "kubectl get all,mutatingwebhookconfigurations,clusterroles,secrets,leases --all-namespaces --output=name"
	require.Eventually(t, func() bool { return !strings.Contains(a.shell(everything), "airflow-requeue") }, world.Patience, time.Second)
}

// blocks are the commands of a chapter, by code block.
func (a *airflow) blocks(chapter string) (all [][]string) {
	a.T.Helper()
	content, err := os.ReadFile(filepath.Join("..", "..", "README.md"))
	require.NoError(a.T, err)
	_, text, ok := strings.Cut(string(content), chapter+"\n")
	require.True(a.T, ok)
	text, _, _ = strings.Cut(text, "\n## ")
	checkout, err := filepath.Abs(chart)
	require.NoError(a.T, err)
	here := strings.NewReplacer("-n airflow ", "-n "+a.Namespace+" ", "--namespace airflow\n", "--namespace "+a.Namespace+"\n",
		"oci://ghcr.io/airflow-requeue/charts/airflow-requeue", checkout)
	for i, block := range strings.Split(text, "```\n") {
		if i%2 == 1 {
			all = append(all, strings.Split(strings.TrimSpace(here.Replace(block)), "\n"))
		}
	}
	return all
}

// shell runs a command, and returns what it says.
func (a *airflow) shell(command string) string {
	a.T.Helper()
	cmd := a.command(a.T.Context(), "bash", "-euc", command)
	bin := a.T.TempDir()
	for name, path := range map[string]string{"helm": helm, "kubectl": kubectl} {
		require.NoError(a.T, os.Symlink(path, filepath.Join(bin, name)))
	}
	cmd.Env = append(cmd.Env, "PATH="+bin+":"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	require.NoError(a.T, err, "%s\n%s", command, out)
	return string(out)
}
