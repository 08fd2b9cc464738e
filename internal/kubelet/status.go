package kubelet

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Reasons and messages in the words of the kubelet and of the control plane.
const (
	reasonCreating       = "ContainerCreating"
	reasonInitializing   = "PodInitializing"
	reasonNotReady       = "ContainersNotReady"
	reasonNotInitialized = "ContainersNotInitialized"
	reasonPodCompleted   = "PodCompleted"
	reasonPodFailed      = "PodFailed"
	reasonStatusUnknown  = "ContainerStatusUnknown"
	messageUnknown       = "The container could not be located when the pod was terminated"
)

// terminated is the exit code of a process that SIGTERM ended.
const terminated = 143

// exit is how a container ended.
type exit struct {
	code   int32
	reason string
}

// words names an exit as the kubelet does: by its code, unless the runtime said OOMKilled, StartError or such.
func (e exit) words() string {
	switch {
	case e.reason != "":
		return e.reason
	case e.code == 0:
		return "Completed"
	}
	return "Error"
}

// creating is the kubelet's first status of a pod: containers wait to be made.
func creating(pod *corev1.Pod, now metav1.Time) corev1.PodStatus {
	status := *pod.Status.DeepCopy()
	status.Phase = corev1.PodPending
	if status.StartTime == nil {
		status.StartTime = &now
	}
	waiting, ready, why := reasonCreating, corev1.ConditionTrue, ""
	if len(pod.Spec.InitContainers) > 0 {
		waiting, ready, why = reasonInitializing, corev1.ConditionFalse, reasonNotInitialized
	}
	status.InitContainerStatuses = waitingStatuses(pod.Spec.InitContainers, waiting)
	status.ContainerStatuses = waitingStatuses(pod.Spec.Containers, waiting)
	setCondition(&status, now, corev1.PodScheduled, corev1.ConditionTrue, "")
	setCondition(&status, now, corev1.PodInitialized, ready, why)
	notReady(&status, now, reasonNotReady)
	return status
}

// initialized is a pod whose init containers have ended well, whose native sidecars run, and whose main containers are
// being made.
func initialized(pod *corev1.Pod, now metav1.Time) corev1.PodStatus {
	status := creating(pod, now)
	for i := range status.InitContainerStatuses {
		container := &status.InitContainerStatuses[i]
		if isSidecar(pod.Spec.InitContainers[i]) {
			run(pod, container, now)
			continue
		}
		terminate(container, exit{}, now)
		container.Ready = true
	}
	status.ContainerStatuses = waitingStatuses(pod.Spec.Containers, reasonCreating)
	setCondition(&status, now, corev1.PodInitialized, corev1.ConditionTrue, "")
	return status
}

// running is a pod with all its main containers running.
func running(pod *corev1.Pod, now metav1.Time) corev1.PodStatus {
	status := initialized(pod, now)
	status.Phase = corev1.PodRunning
	status.PodIP = podIP(pod)
	status.PodIPs = []corev1.PodIP{{IP: status.PodIP}}
	for i := range status.ContainerStatuses {
		run(pod, &status.ContainerStatuses[i], now)
	}
	setCondition(&status, now, corev1.ContainersReady, corev1.ConditionTrue, "")
	setCondition(&status, now, corev1.PodReady, corev1.ConditionTrue, "")
	return status
}

// ending is the status of the second or two between the end of the containers and that of the pod: all of them are
// terminated, the phase is what it was. Native sidecars outlive the main containers, and are killed.
func ending(pod *corev1.Pod, how exit, now metav1.Time) corev1.PodStatus {
	status := *pod.Status.DeepCopy()
	if len(status.ContainerStatuses) == 0 {
		status = initialized(pod, now)
	}
	for i := range status.InitContainerStatuses {
		if status.InitContainerStatuses[i].State.Running != nil {
			terminate(&status.InitContainerStatuses[i], exit{code: terminated}, now)
		}
	}
	for i := range status.ContainerStatuses {
		if status.ContainerStatuses[i].State.Terminated == nil {
			terminate(&status.ContainerStatuses[i], how, now)
		}
	}
	notReady(&status, now, reasonNotReady)
	return status
}

// ended is a pod's last status, by how its containers ended; native sidecars have no say in it.
func ended(pod *corev1.Pod, now metav1.Time) corev1.PodStatus {
	status := *pod.Status.DeepCopy()
	failed := slices.ContainsFunc(status.ContainerStatuses, failedContainer)
	for i, container := range status.InitContainerStatuses {
		failed = failed || failedContainer(container) && !isSidecar(pod.Spec.InitContainers[i])
	}
	if failed {
		status.Phase = corev1.PodFailed
		notReady(&status, now, reasonPodFailed)
		return status
	}
	status.Phase = corev1.PodSucceeded
	setCondition(&status, now, corev1.PodInitialized, corev1.ConditionTrue, reasonPodCompleted)
	notReady(&status, now, reasonPodCompleted)
	return status
}

// initFailed is a pod whose first init container failed: the main ones wait for ever.
func initFailed(pod *corev1.Pod, how exit, now metav1.Time) corev1.PodStatus {
	status := creating(pod, now)
	if len(status.InitContainerStatuses) > 0 {
		terminate(&status.InitContainerStatuses[0], how, now)
	}
	return status
}

// lost is the last status of a pod that was killed while its containers were being made: the kubelet finds none of
// them, and calls that 137. Main containers that still wait for init containers stay waiting.
func lost(pod *corev1.Pod, now metav1.Time) corev1.PodStatus {
	status := *pod.Status.DeepCopy()
	if len(status.ContainerStatuses) == 0 {
		status = creating(pod, now)
	}
	for i := range status.InitContainerStatuses {
		if status.InitContainerStatuses[i].State.Running != nil {
			lose(&status.InitContainerStatuses[i])
		}
	}
	for i := range status.ContainerStatuses {
		if isInitialized(&status) && status.ContainerStatuses[i].State.Terminated == nil {
			lose(&status.ContainerStatuses[i])
		}
	}
	status.Phase = corev1.PodFailed
	notReady(&status, now, reasonPodFailed)
	return status
}

// rejected is the status of a pod that the kubelet did not admit: nothing but a reason.
func rejected(pod *corev1.Pod, reason, message string, now metav1.Time) corev1.PodStatus {
	return corev1.PodStatus{
		Phase:     corev1.PodFailed,
		Reason:    reason,
		Message:   "Pod was rejected: " + message,
		StartTime: &now,
		QOSClass:  pod.Status.QOSClass,
	}
}

// waiting is a pod whose first main container waits for a reason, an image's or a configuration's.
func waiting(pod *corev1.Pod, reason, message string, now metav1.Time) corev1.PodStatus {
	status := initialized(pod, now)
	status.ContainerStatuses[0].State.Waiting = &corev1.ContainerStateWaiting{Reason: reason, Message: message}
	return status
}

func waitingStatuses(containers []corev1.Container, reason string) []corev1.ContainerStatus {
	var statuses []corev1.ContainerStatus
	for _, container := range containers {
		statuses = append(statuses, corev1.ContainerStatus{
			Name:    container.Name,
			Image:   container.Image,
			Started: new(bool),
			State:   corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason}},
		})
	}
	return statuses
}

func run(pod *corev1.Pod, container *corev1.ContainerStatus, now metav1.Time) {
	started := true
	container.State = corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}}
	container.Ready = true
	container.Started = &started
	container.ContainerID = "containerd://" + string(pod.UID) + "-" + container.Name
	container.ImageID = container.Image
}

func terminate(container *corev1.ContainerStatus, how exit, now metav1.Time) {
	state := &corev1.ContainerStateTerminated{
		ExitCode: how.code, Reason: how.words(), StartedAt: now, FinishedAt: now, ContainerID: container.ContainerID,
	}
	if container.State.Running != nil {
		state.StartedAt = container.State.Running.StartedAt
	}
	container.State = corev1.ContainerState{Terminated: state}
	container.Ready = false
	container.Started = new(bool)
}

func lose(container *corev1.ContainerStatus) {
	container.Ready = false
	container.State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
		ExitCode: 137, Reason: reasonStatusUnknown, Message: messageUnknown,
	}}
}

func failedContainer(container corev1.ContainerStatus) bool {
	return container.State.Terminated != nil && container.State.Terminated.ExitCode != 0
}

func isSidecar(container corev1.Container) bool {
	return container.RestartPolicy != nil && *container.RestartPolicy == corev1.ContainerRestartPolicyAlways
}

func isEnded(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}
