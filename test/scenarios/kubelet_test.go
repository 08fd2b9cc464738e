package scenarios

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/airflow-requeue/airflow-requeue/internal/executor"
)

const node = "node-a"

// creating is a task's pod whose containers are being made.
func (s *stage) creating(task executor.Task) *corev1.Pod {
	s.T.Helper()
	return s.made(s.submit(task))
}

// made takes a pod to ContainerCreating.
func (s *stage) made(pod *corev1.Pod) *corev1.Pod {
	s.T.Helper()
	pod = s.ok(s.Kubelet.Bind(s.T.Context(), pod, node))
	return s.ok(s.Kubelet.Create(s.T.Context(), pod))
}

// started takes a pod to Running.
func (s *stage) started(pod *corev1.Pod) *corev1.Pod {
	s.T.Helper()
	return s.ok(s.Kubelet.Start(s.T.Context(), s.made(pod)))
}

// running is a task's pod that runs, its task not yet.
func (s *stage) running(task executor.Task) *corev1.Pod {
	s.T.Helper()
	return s.started(s.submit(task))
}

// reject is a kubelet that does not admit a pod.
func (s *stage) reject(pod *corev1.Pod) *corev1.Pod {
	s.T.Helper()
	pod = s.ok(s.Kubelet.Bind(s.T.Context(), pod, node))
	return s.ok(s.Kubelet.Reject(s.T.Context(), pod, "OutOfcpu", "Node didn't have enough resource: cpu"))
}

// drain evicts a pod from its node, and its kubelet ends it.
func (s *stage) drain(pod *corev1.Pod) {
	s.T.Helper()
	s.do(s.Kubelet.Evict(s.T.Context(), pod))
	s.do(s.Kubelet.Terminate(s.T.Context(), pod, 143))
}

// delete is kubectl delete, or whoever else deletes a pod.
func (s *stage) delete(pod *corev1.Pod) {
	s.T.Helper()
	s.do(s.airflow.Delete(s.T.Context(), pod.Name))
}
