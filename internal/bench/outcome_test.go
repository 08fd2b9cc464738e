package bench

import (
	"testing"

	"github.com/stretchr/testify/assert"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

func failedPod(uid types.UID) corev1.Pod {
	return corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: string(uid), UID: uid, Labels: map[string]string{}}}
}

func replacement(of types.UID, labels map[string]string) corev1.Pod {
	return corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: string(of) + "-r1", UID: of + "-r1", Labels: labels,
		Annotations: map[string]string{requeue.AnnotationRequeueOf: string(of)}}}
}

func TestWhatIsWrongAfterReplacementsIsSaid(t *testing.T) {
	good := map[string]string{requeue.LabelWorker: "1", requeue.LabelTracked: "x", requeue.LabelHold: requeue.HoldValue}
	gated := replacement("b", good)
	gated.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: requeue.SchedulingGate}}
	held := failedPod("b")
	held.Finalizers = []string{requeue.Finalizer}
	for name, c := range map[string]struct {
		pods []corev1.Pod
		want []string
	}{
		"nothing": {[]corev1.Pod{failedPod("a"), failedPod("b"), replacement("a", good), replacement("b", good)}, nil},
		"one is missing": {[]corev1.Pod{failedPod("a"), failedPod("b"), replacement("a", good)},
			[]string{"[failed pods without one replacement:1 pods:3 replacements:1]"}},
		"one is doubled": {[]corev1.Pod{failedPod("a"), failedPod("b"), replacement("a", good), replacement("a", good)},
			[]string{"[failed pods without one replacement:2 pods:4 replacements:2]"}},
		"one is gated": {[]corev1.Pod{failedPod("a"), failedPod("b"), replacement("a", good), gated},
			[]string{"[pods:4 replacements:2 replacements that may not run:1]"}},
		"one is left held": {[]corev1.Pod{failedPod("a"), held, replacement("a", good), replacement("b", good)},
			[]string{"[failed pods that are attached or tracked:1 pods:4 replacements:2]"}},
	} {
		t.Run(name, func(t *testing.T) { assert.Equal(t, c.want, wrongs(c.pods, 2)) })
	}
}
