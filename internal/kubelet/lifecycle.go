package kubelet

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Bind is the scheduler's binding of a pod to a node. The API server sets the condition PodScheduled with it.
func (k *Kubelet) Bind(ctx context.Context, pod *corev1.Pod, node string) (*corev1.Pod, error) {
	binding := &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID},
		Target:     corev1.ObjectReference{Kind: "Node", Name: node},
	}
	err := k.answered(ctx, func() error { return k.pods(pod).Bind(ctx, binding, metav1.CreateOptions{}) })
	if apierrors.IsConflict(err) {
		// The answer to an earlier try may have been lost.
		if live, unread := k.read(ctx, pod); unread == nil && live.Spec.NodeName == node {
			return live, nil
		}
	}
	if err != nil {
		return pod, fmt.Errorf("binding pod %s/%s to node %s: %w", pod.Namespace, pod.Name, node, err)
	}
	bound := pod.DeepCopy()
	bound.Spec.NodeName = node
	setCondition(&bound.Status, k.now(), corev1.PodScheduled, corev1.ConditionTrue, "")
	return k.newest(ctx, bound)
}

// Unschedulable is the scheduler's condition on a pod that fits no node.
func (k *Kubelet) Unschedulable(ctx context.Context, pod *corev1.Pod, message string) (*corev1.Pod, error) {
	return k.write(ctx, pod, func(pod *corev1.Pod, now metav1.Time) corev1.PodStatus {
		status := *pod.Status.DeepCopy()
		setCondition(&status, now, corev1.PodScheduled, corev1.ConditionFalse, corev1.PodReasonUnschedulable)
		setMessage(&status, corev1.PodScheduled, message)
		return status
	})
}

// Create is the kubelet's first status of a bound pod: Pending, containers waiting with ContainerCreating, or
// PodInitializing where there are init containers.
func (k *Kubelet) Create(ctx context.Context, pod *corev1.Pod) (*corev1.Pod, error) {
	return k.write(ctx, pod, creating)
}

// Start takes a pod to Running, all its containers with it; init containers have ended well before.
func (k *Kubelet) Start(ctx context.Context, pod *corev1.Pod) (*corev1.Pod, error) {
	return k.write(ctx, pod, running)
}

// Succeed ends a pod by itself with exit code 0.
func (k *Kubelet) Succeed(ctx context.Context, pod *corev1.Pod) (*corev1.Pod, error) {
	return k.Exit(ctx, pod, 0, "")
}

// Fail ends a pod by itself with exit code 1: reason Error.
func (k *Kubelet) Fail(ctx context.Context, pod *corev1.Pod) (*corev1.Pod, error) {
	return k.Exit(ctx, pod, 1, "")
}

// OOMKill ends a pod whose container used up its memory: reason OOMKilled, exit code 137.
func (k *Kubelet) OOMKill(ctx context.Context, pod *corev1.Pod) (*corev1.Pod, error) {
	return k.Exit(ctx, pod, 137, "OOMKilled")
}

// StartError ends a pod whose command cannot be run: from Pending to Failed, exit code 128.
func (k *Kubelet) StartError(ctx context.Context, pod *corev1.Pod) (*corev1.Pod, error) {
	return k.Exit(ctx, pod, 128, "StartError")
}

// Exit ends a pod by itself, in two writes: EndContainers, then EndPod. An empty reason means Completed or Error, by
// the code.
func (k *Kubelet) Exit(ctx context.Context, pod *corev1.Pod, code int32, reason string) (*corev1.Pod, error) {
	pod, err := k.EndContainers(ctx, pod, code, reason)
	if err != nil {
		return pod, err
	}
	return k.EndPod(ctx, pod)
}

// EndContainers terminates a pod's containers and leaves its phase: for a second or two a real pod looks like this.
func (k *Kubelet) EndContainers(ctx context.Context, pod *corev1.Pod, code int32, reason string) (*corev1.Pod, error) {
	return k.write(ctx, pod, func(pod *corev1.Pod, now metav1.Time) corev1.PodStatus {
		return ending(pod, exit{code: code, reason: reason}, now)
	})
}

// EndPod gives a pod whose containers are terminated its last phase.
func (k *Kubelet) EndPod(ctx context.Context, pod *corev1.Pod) (*corev1.Pod, error) {
	return k.write(ctx, pod, ended)
}

// FailInit ends a pod whose first init container failed: its main containers wait for ever.
func (k *Kubelet) FailInit(ctx context.Context, pod *corev1.Pod, code int32, reason string) (*corev1.Pod, error) {
	pod, err := k.write(ctx, pod, func(pod *corev1.Pod, now metav1.Time) corev1.PodStatus {
		return initFailed(pod, exit{code: code, reason: reason}, now)
	})
	if err != nil {
		return pod, err
	}
	return k.EndPod(ctx, pod)
}

// Waiting is a pod whose first main container waits: ErrImagePull, ImagePullBackOff, CreateContainerConfigError and
// their like.
func (k *Kubelet) Waiting(ctx context.Context, pod *corev1.Pod, reason, message string) (*corev1.Pod, error) {
	return k.write(ctx, pod, func(pod *corev1.Pod, now metav1.Time) corev1.PodStatus {
		return waiting(pod, reason, message, now)
	})
}

// ImagePull is one failed attempt to pull a pod's image: ErrImagePull with the message, then ImagePullBackOff around
// it. A real pod goes through it again and again.
func (k *Kubelet) ImagePull(ctx context.Context, pod *corev1.Pod, message string) (*corev1.Pod, error) {
	pod, err := k.Waiting(ctx, pod, "ErrImagePull", message)
	if err != nil {
		return pod, err
	}
	image := pod.Spec.Containers[0].Image
	return k.Waiting(ctx, pod, "ImagePullBackOff",
		fmt.Sprintf("Back-off pulling image %q: ErrImagePull: %s", image, message))
}

// Reject is a kubelet that does not admit a pod (NodeAffinity, OutOfcpu, TaintToleration, UnexpectedAdmissionError):
// Failed with a reason, and neither container statuses nor conditions.
func (k *Kubelet) Reject(ctx context.Context, pod *corev1.Pod, reason, message string) (*corev1.Pod, error) {
	return k.write(ctx, pod, func(pod *corev1.Pod, now metav1.Time) corev1.PodStatus {
		return rejected(pod, reason, message, now)
	})
}

// FailWith ends a pod with a reason of its own and no deletion: DeadlineExceeded by the kubelet, ProviderFailed by a
// virtual one.
func (k *Kubelet) FailWith(ctx context.Context, pod *corev1.Pod, reason, message string) (*corev1.Pod, error) {
	return k.write(ctx, pod, func(pod *corev1.Pod, now metav1.Time) corev1.PodStatus {
		status := taken(pod, terminated, now)
		status.Phase, status.Reason, status.Message = corev1.PodFailed, reason, message
		return status
	})
}
