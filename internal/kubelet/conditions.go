package kubelet

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// setCondition writes a condition without a message; its transition time moves only when its status does.
func setCondition(status *corev1.PodStatus, now metav1.Time, kind corev1.PodConditionType, value corev1.ConditionStatus,
	reason string) {
	condition := corev1.PodCondition{Type: kind, Status: value, Reason: reason, LastTransitionTime: now}
	for i, old := range status.Conditions {
		if old.Type != kind {
			continue
		}
		if old.Status == value {
			condition.LastTransitionTime = old.LastTransitionTime
		}
		status.Conditions[i] = condition
		return
	}
	status.Conditions = append(status.Conditions, condition)
}

func notReady(status *corev1.PodStatus, now metav1.Time, reason string) {
	setCondition(status, now, corev1.ContainersReady, corev1.ConditionFalse, reason)
	setCondition(status, now, corev1.PodReady, corev1.ConditionFalse, reason)
}

// disrupt marks a pod as disrupted, as whoever is about to end it does first.
func disrupt(status *corev1.PodStatus, now metav1.Time, reason, message string) {
	setCondition(status, now, corev1.DisruptionTarget, corev1.ConditionTrue, reason)
	setMessage(status, corev1.DisruptionTarget, message)
}

func setMessage(status *corev1.PodStatus, kind corev1.PodConditionType, message string) {
	for i := range status.Conditions {
		if status.Conditions[i].Type == kind {
			status.Conditions[i].Message = message
		}
	}
}

func isInitialized(status *corev1.PodStatus) bool {
	for _, condition := range status.Conditions {
		if condition.Type == corev1.PodInitialized {
			return condition.Status == corev1.ConditionTrue
		}
	}
	return false
}
