package kubelet

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Terminate is a kubelet that finishes the deletion of a pod on its node: it acknowledges it, ends the containers,
// writes the last status, and removes the object, which stays as long as it has a finalizer. Containers that ran answer
// SIGTERM with the code: 143 when nothing catches it, 0 when the process ends well, and the pod with it. Containers
// that were being made are lost: ContainerStatusUnknown, 137.
func (k *Kubelet) Terminate(ctx context.Context, pod *corev1.Pod, code int32) error {
	pod, err := k.newest(ctx, pod)
	if err != nil {
		return err
	}
	if !isEnded(pod) {
		if pod, err = k.write(ctx, pod, acknowledged); err != nil {
			return err
		}
		pod, err = k.Kill(ctx, pod, code)
		if err != nil {
			return err
		}
	}
	return k.remove(ctx, pod)
}

// Kill is the last status of a pod that its kubelet ends, in one write and without removing the object: the end of
// Terminate, and all that is seen of a pod that is killed while its containers are being made.
func (k *Kubelet) Kill(ctx context.Context, pod *corev1.Pod, code int32) (*corev1.Pod, error) {
	return k.write(ctx, pod, func(pod *corev1.Pod, now metav1.Time) corev1.PodStatus {
		return taken(pod, code, now)
	})
}

// CollectGarbage is the pod garbage collector on a pod that was deleted before it had a node: phase Failed, without a
// reason, then removal.
func (k *Kubelet) CollectGarbage(ctx context.Context, pod *corev1.Pod) error {
	pod, err := k.newest(ctx, pod)
	if err != nil {
		return err
	}
	if !isEnded(pod) {
		pod, err = k.condition(ctx, pod, func(status *corev1.PodStatus, _ metav1.Time) {
			status.Phase = corev1.PodFailed
		})
		if err != nil {
			return err
		}
	}
	return k.remove(ctx, pod)
}

// acknowledged is a pod of which the kubelet has seen the deletion. An image that it was pulling is forgotten: the
// container is back to ContainerCreating.
func acknowledged(pod *corev1.Pod, _ metav1.Time) corev1.PodStatus {
	status := *pod.Status.DeepCopy()
	for i := range status.ContainerStatuses {
		if waiting := status.ContainerStatuses[i].State.Waiting; waiting != nil && isInitialized(&status) {
			*waiting = corev1.ContainerStateWaiting{Reason: reasonCreating}
		}
	}
	return status
}

// taken is the last status of a pod that the kubelet ends: containers that ran exit with the code, others are lost.
func taken(pod *corev1.Pod, code int32, now metav1.Time) corev1.PodStatus {
	for _, container := range pod.Status.ContainerStatuses {
		if container.State.Running != nil || container.State.Terminated != nil {
			pod = pod.DeepCopy()
			pod.Status = ending(pod, exit{code: code}, now)
			return ended(pod, now)
		}
	}
	return lost(pod, now)
}
