package chart_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	appsv1 "k8s.io/api/apps/v1"

	"github.com/airflow-requeue/airflow-requeue/internal/cluster"
	"github.com/airflow-requeue/airflow-requeue/internal/rendered"
)

// TestACheckByExecLooksAtWhatTheWatcherUses is of kubectl exec, which gives a check the container's environment alone.
func TestACheckByExecLooksAtWhatTheWatcherUses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		values  string
		rotates bool
	}{
		"one namespace":      {"", true},
		"several namespaces": {"airflow.workerNamespaces={etl,ml}", true},
		"keys of your own":   {"airflow.workerNamespaces={etl},signingKeys.secret=mine", false},
	} {
		t.Run(name, func(t *testing.T) {
			all := rendered.Template(t, helm, "blue", chart, "--namespace=data", "--set="+c.values)
			byArguments, byEnvironment := cluster.Checks(t, servers, built["watcher"], rendered.Into[appsv1.Deployment](t, all, "Deployment", "airflow-requeue-watcher"))
			assert.Equal(t, byArguments, byEnvironment)
			assert.Contains(t, byEnvironment, "blue")
			if c.rotates {
				assert.Contains(t, byEnvironment, "key rotation")
			} else {
				assert.NotContains(t, byEnvironment, "key rotation")
			}
		})
	}
}
