package cluster

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/airflow-requeue/airflow-requeue/internal/controlplane"
)

// Checks are what `check` says with the arguments of a watcher's first container and no environment, and what it says with that
// container's environment and no arguments, as kubectl exec has it. Nothing is mounted.
func Checks(t testing.TB, servers *controlplane.ControlPlane, program string, d *appsv1.Deployment) (byArguments, byEnvironment string) {
	t.Helper()
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: d.Namespace, Labels: d.Spec.Template.Labels}}
	container := d.Spec.Template.Spec.Containers[0]
	variables, pairs, err := Environment(container, pod)
	require.NoError(t, err)
	config, err := servers.User("system:serviceaccount:" + d.Namespace + ":" + d.Spec.Template.Spec.ServiceAccountName)
	require.NoError(t, err)
	access, err := servers.Kubeconfig(config)
	require.NoError(t, err)
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	require.NoError(t, os.WriteFile(kubeconfig, access, 0o600))

	check := func(environment []string, args ...string) string {
		cmd := exec.CommandContext(t.Context(), program, append([]string{"check", "--output=json", "--kubeconfig=" + kubeconfig}, args...)...)
		var stdout, stderr bytes.Buffer
		cmd.Env, cmd.Stdout, cmd.Stderr = environment, &stdout, &stderr
		var failed *exec.ExitError
		require.ErrorAs(t, cmd.Run(), &failed, "nothing is mounted")
		require.NotEmpty(t, stdout.String(), "%s", &stderr)
		return stdout.String()
	}
	unmounted := map[string]string{}
	for _, m := range container.VolumeMounts {
		unmounted[m.Name] = m.MountPath
	}
	own := slices.IndexFunc(variables, func(v string) bool { return strings.HasPrefix(v, "POD_NAMESPACE=") }) // else the kubelet mounts it
	require.GreaterOrEqual(t, own, 0)
	return check(variables[own:own+1], arguments(container, pod, pairs, unmounted)...), check(variables)
}
