package executor

import corev1 "k8s.io/api/core/v1"

// Failure is what provider 10.25's watch collects from a failed pod (kubernetes_executor_types.FailureDetails). The
// executor's own requeue decides by ContainerReason.
type Failure struct {
	PodReason        string
	PodMessage       string
	ContainerType    string // "init" or "main"; empty where no container tells
	ContainerName    string
	ContainerState   string // "terminated" or "waiting"
	ContainerReason  string
	ContainerMessage string
	ExitCode         int32
}

// failure is kubernetes_executor_utils.collect_pod_failure_details: init containers first.
func failure(pod *corev1.Pod) *Failure {
	f := &Failure{PodReason: pod.Status.Reason, PodMessage: pod.Status.Message}
	if !f.analyze("init", pod.Status.InitContainerStatuses) {
		f.analyze("main", pod.Status.ContainerStatuses)
	}
	return f
}

// analyze takes the first container that ended badly, else the last one that waits, and says whether there was any.
func (f *Failure) analyze(kind string, statuses []corev1.ContainerStatus) bool {
	found := false
	for _, status := range statuses {
		switch terminated, waiting := status.State.Terminated, status.State.Waiting; {
		case terminated != nil:
			if terminated.ExitCode == 0 || terminated.Reason == "Completed" {
				continue
			}
			f.ContainerType, f.ContainerName, f.ContainerState = kind, status.Name, "terminated"
			f.ContainerReason, f.ContainerMessage = terminated.Reason, terminated.Message
			f.ExitCode = terminated.ExitCode
			return true
		case waiting != nil:
			f.ContainerType, f.ContainerName, f.ContainerState = kind, status.Name, "waiting"
			f.ContainerReason, f.ContainerMessage = waiting.Reason, waiting.Message
			found = true
		}
	}
	return found
}
