package scenarios

import (
	"encoding/json"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// What a watcher leaves that is gone in the middle of its work, made by hand while none runs.

// withoutWatcher does something while no watcher runs; the next one leads at once.
func (s *stage) withoutWatcher(do func()) {
	s.T.Helper()
	s.watcher.Stop()
	do()
	s.interrupted = true
	s.watcher = s.startWatcher(s.Access(s.WatcherUser()))
}

// change patches metadata of a pod; nil takes a label or an annotation off.
func (s *stage) change(pod *corev1.Pod, labels, annotations map[string]any) *corev1.Pod {
	s.T.Helper()
	metadata := map[string]any{}
	if labels != nil {
		metadata["labels"] = labels
	}
	if annotations != nil {
		metadata["annotations"] = annotations
	}
	patch, err := json.Marshal(map[string]any{"metadata": metadata})
	require.NoError(s.T, err)
	return s.patch(pod.Name, string(patch))
}

// detach is the first write of a requeue.
func (s *stage) detach(pod *corev1.Pod, reason requeue.Reason, message string) *corev1.Pod {
	s.T.Helper()
	return s.change(pod, map[string]any{requeue.LabelWorker: nil, requeue.LabelExecutorDone: "True"}, map[string]any{
		requeue.AnnotationDetached: "1", requeue.AnnotationReason: string(reason), requeue.AnnotationMessage: message})
}

// commit is the third write of a requeue.
func (s *stage) commit(replacement *corev1.Pod) *corev1.Pod {
	s.T.Helper()
	return s.change(replacement, map[string]any{requeue.LabelWorker: "1"}, map[string]any{requeue.AnnotationCommitted: "true"})
}

// live is a pod as the API server has it.
func (s *stage) live(pod *corev1.Pod) *corev1.Pod {
	s.T.Helper()
	return s.ok(s.Client.CoreV1().Pods(s.Namespace).Get(s.T.Context(), pod.Name, metav1.GetOptions{}))
}
