package scenarios

import (
	"encoding/json"
	"os"
	"path/filepath"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/airflow-requeue/airflow-requeue/internal/executor"
	"github.com/airflow-requeue/airflow-requeue/internal/world"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// secret is a signing key's, which nobody has mounted yet.
func secret(id string) []byte { return []byte("the secret of the key that is called " + id) }

// postSealedWith creates a task's pod as a webhook stamps it that has a newer key mounted than the others have.
func (s *stage) postSealedWith(task executor.Task, id string) *corev1.Pod {
	s.T.Helper()
	keys := requeue.Keys{Current: id, Secrets: map[string][]byte{id: secret(id)}}
	sealer, err := requeue.NewSealer(func() requeue.Keys { return keys })
	require.NoError(s.T, err)
	pod, err := world.Stamped(sealer, world.Installation, s.Namespace, task)
	require.NoError(s.T, err)
	raw, err := json.Marshal(pod)
	require.NoError(s.T, err)
	return s.post(raw)
}

// mountKey is a Secret that has caught up.
func (s *stage) mountKey(id string) {
	s.T.Helper()
	require.NoError(s.T, os.WriteFile(filepath.Join(s.KeysDir, id), secret(id), 0o600))
}
