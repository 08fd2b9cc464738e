package history

import (
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// Moment is one event of a pod, and when it was seen.
type Moment struct {
	watch.EventType
	Pod *corev1.Pod
	At  time.Time
}

// String is a line about it, for a test that failed. It begins with minute, second and millisecond.
func (m Moment) String() string {
	line := fmt.Sprintf("%s %-8s %s", m.At.Format("04:05.000"), m.EventType, Describe(m.Pod))
	if m.EventType == watch.Added {
		line += " created " + m.Pod.CreationTimestamp.UTC().Format("04:05")
	}
	return line
}

// Describe says of a pod what this project and Airflow's executor care about.
func Describe(pod *corev1.Pod) string {
	said := []string{pod.Name, string(pod.Status.Phase)}
	for _, is := range []struct {
		what string
		true bool
	}{
		{"worker=" + pod.Labels[requeue.LabelWorker], pod.Labels[requeue.LabelWorker] != ""},
		{"done", pod.Labels[requeue.LabelExecutorDone] == "True"},
		{"held", requeue.Held(pod)},
		{"revoked", requeue.Revoked(pod)},
		{"tracked", requeue.Tracked(pod)},
		{"detached", requeue.Detached(pod)},
		{"undoing", requeue.Undoing(pod)},
		{"gated", requeue.Gated(pod)},
		{"committed", requeue.Committed(pod)},
		{"discarded", requeue.Discarded(pod)},
		{"replaced", pod.Labels[requeue.LabelReplaced] != ""},
		{"deleting", pod.DeletionTimestamp != nil},
		{"finalizers=" + strings.Join(pod.Finalizers, ","), len(pod.Finalizers) > 0},
		{"node=" + pod.Spec.NodeName, pod.Spec.NodeName != ""},
		{"reason=" + pod.Annotations[requeue.AnnotationReason], pod.Annotations[requeue.AnnotationReason] != ""},
		{"status=" + pod.Status.Reason, pod.Status.Reason != ""},
	} {
		if is.true {
			said = append(said, is.what)
		}
	}
	return strings.Join(said, " ")
}
