package kubelet

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Evict asks the API server's eviction subresource to end a pod, as kubectl drain and the cluster autoscaler do: the
// server sets DisruptionTarget (EvictionByEvictionAPI), then deletes with the pod's grace. What follows is Terminate's.
func (k *Kubelet) Evict(ctx context.Context, pod *corev1.Pod) error {
	err := k.answered(ctx, func() error {
		return k.pods(pod).EvictV1(ctx, &policyv1.Eviction{
			ObjectMeta:    metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name},
			DeleteOptions: &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &pod.UID}},
		})
	})
	if err != nil {
		return fmt.Errorf("evicting pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	return nil
}

// Preempt is the scheduler that makes room for another pod: DisruptionTarget, then deletion with the pod's grace.
func (k *Kubelet) Preempt(ctx context.Context, pod *corev1.Pod) error {
	return k.disruptAndDelete(ctx, pod, corev1.PodReasonPreemptionByScheduler,
		"default-scheduler: preempting to accommodate a higher priority pod")
}

// EvictByTaint is the taint manager that empties a node with a NoExecute taint: DisruptionTarget, then deletion.
func (k *Kubelet) EvictByTaint(ctx context.Context, pod *corev1.Pod) error {
	return k.disruptAndDelete(ctx, pod, "DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint")
}

func (k *Kubelet) disruptAndDelete(ctx context.Context, pod *corev1.Pod, reason, message string) error {
	pod, err := k.Disrupt(ctx, pod, reason, message)
	if err != nil {
		return err
	}
	err = k.answered(ctx, func() error {
		return k.pods(pod).Delete(ctx, pod.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &pod.UID}})
	})
	if err != nil {
		return fmt.Errorf("deleting pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	return nil
}

// Disrupt sets the condition DisruptionTarget alone: it comes before a deletion, and may come after Failed.
func (k *Kubelet) Disrupt(ctx context.Context, pod *corev1.Pod, reason, message string) (*corev1.Pod, error) {
	return k.condition(ctx, pod, func(status *corev1.PodStatus, now metav1.Time) {
		disrupt(status, now, reason, message)
	})
}

// Undisrupt turns DisruptionTarget to False: the disruption controller does it when no deletion follows for 2 minutes.
func (k *Kubelet) Undisrupt(ctx context.Context, pod *corev1.Pod) (*corev1.Pod, error) {
	return k.condition(ctx, pod, func(status *corev1.PodStatus, now metav1.Time) {
		setCondition(status, now, corev1.DisruptionTarget, corev1.ConditionFalse, "")
	})
}

func (k *Kubelet) condition(ctx context.Context, pod *corev1.Pod,
	set func(*corev1.PodStatus, metav1.Time)) (*corev1.Pod, error) {
	return k.write(ctx, pod, func(pod *corev1.Pod, now metav1.Time) corev1.PodStatus {
		status := *pod.Status.DeepCopy()
		set(&status, now)
		return status
	})
}

// NodePressure is a kubelet that evicts a pod because its node runs out of something: Failed with reason Evicted and
// DisruptionTarget (TerminationByKubelet) in one write, and no deletion.
func (k *Kubelet) NodePressure(ctx context.Context, pod *corev1.Pod, message string) (*corev1.Pod, error) {
	return k.endByKubelet(ctx, pod, 137, "Evicted", message) // no grace: SIGKILL
}

// NodeShutdown is a kubelet that ends its pods because its node shuts down gracefully: Failed with reason Terminated
// and DisruptionTarget (TerminationByKubelet), and no deletion.
func (k *Kubelet) NodeShutdown(ctx context.Context, pod *corev1.Pod) (*corev1.Pod, error) {
	return k.endByKubelet(ctx, pod, terminated, "Terminated",
		"Pod was terminated in response to imminent node shutdown.")
}

func (k *Kubelet) endByKubelet(ctx context.Context, pod *corev1.Pod, code int32,
	reason, message string) (*corev1.Pod, error) {
	return k.write(ctx, pod, func(pod *corev1.Pod, now metav1.Time) corev1.PodStatus {
		status := taken(pod, code, now)
		status.Phase, status.Reason, status.Message = corev1.PodFailed, reason, message
		disrupt(&status, now, corev1.PodReasonTerminationByKubelet, message)
		return status
	})
}

// NodeLost is the pod garbage collector on a pod whose node is gone: Failed with DisruptionTarget (DeletionByPodGC),
// then removal. The containers' statuses stay as they were last seen.
func (k *Kubelet) NodeLost(ctx context.Context, pod *corev1.Pod) error {
	pod, err := k.condition(ctx, pod, func(status *corev1.PodStatus, now metav1.Time) {
		status.Phase = corev1.PodFailed
		disrupt(status, now, "DeletionByPodGC", "PodGC: node no longer exists")
	})
	if err != nil {
		return err
	}
	return k.remove(ctx, pod)
}
