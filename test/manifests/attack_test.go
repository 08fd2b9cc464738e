package manifests_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/airflow-requeue/airflow-requeue/internal/programs"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// planted turns TestAnAttackSucceedsOnAWatcherWithoutItsDefence on.
var planted = flag.Bool("planted", false, "build a watcher without its defences and see the attacks on it succeed")

const (
	evil     = "evil:1"
	mismatch = "Warning Tampered Report: Reported to Airflow: the stamps are not what was sealed: the signature does not match the stamps"
)

// attack is what somebody does to a held pod, and what becomes of the pod in the end where the defence is off. With the policy each
// is refused.
type attack struct {
	name string
	try  func(*testing.T, *target, *corev1.Pod) error
	// unguarded is the pod's fate where the policy is not bound.
	unguarded string
	// undefended is its fate where the watcher lacks its own defence too; empty where the policy is all there is.
	undefended string
}

// attacks are by those who may change pods, and by nodes.
func attacks() []attack {
	return []attack{
		{name: "swap the job spec", unguarded: mismatch, undefended: "replaced by evil:1, as airflow-worker",
			try: func(t *testing.T, x *target, pod *corev1.Pod) error {
				packed, checksum := x.Sealer.Pack(evilSpec(t, pod, pod.Spec.ServiceAccountName))
				return stamp(t, x.attacker, pod, map[string]any{requeue.AnnotationJobSpec: packed, requeue.AnnotationJobSpecChecksum: checksum})
			}},
		{name: "swap the job spec, with a signature that the webhook was asked for directly", unguarded: "replaced by evil:1, as airflow-worker",
			try: func(t *testing.T, x *target, pod *corev1.Pod) error {
				stamps := x.ask(t, x.airflow(), evilPod(pod, pod.Spec.ServiceAccountName))
				return stamp(t, x.attacker, pod, anyOf(stamps))
			}},
		{name: "point to another service account, with a signature of the webhook's for that", unguarded: mismatch,
			undefended: "replaced by evil:1, as privileged",
			try: func(t *testing.T, x *target, pod *corev1.Pod) error {
				return stamp(t, x.attacker, pod, anyOf(x.ask(t, x.airflow(), evilPod(pod, "privileged"))))
			}},
		{name: "replay another pod's stamps", unguarded: mismatch, undefended: "replaced by other:1, as airflow-worker",
			try: func(t *testing.T, x *target, pod *corev1.Pod) error {
				other := evilPod(pod, pod.Spec.ServiceAccountName)
				other.Name, other.Spec.Containers[0].Image = "other-"+pod.Name, "other:1"
				other, err := x.scheduler.Client.CoreV1().Pods(x.Namespace).Create(t.Context(), other, metav1.CreateOptions{})
				require.NoError(t, err)
				return stamp(t, x.attacker, pod, stampsOf(other))
			}},
		{name: "raise its attempts", unguarded: mismatch,
			undefended: "Warning Exhausted Report: Reported to Airflow: 99 of 1 replacements made; NodeAffinity: Pod was rejected: no",
			try: func(t *testing.T, x *target, pod *corev1.Pod) error {
				return stamp(t, x.attacker, pod, map[string]any{requeue.AnnotationAttempt: "99"})
			}},
		{name: "put a decompression bomb in the place of the job spec",
			unguarded: "Warning Tampered Report: Reported to Airflow: the stamps are not what was sealed: unpacking the job spec: decompressed size exceeds configured limit",
			undefended: "Warning Tampered Report: Reported to Airflow: the stamps are not what was sealed: " +
				"unpacking the job spec: it is not what the checksum says",
			try: func(t *testing.T, x *target, pod *corev1.Pod) error {
				packed, _ := x.Sealer.Pack(make([]byte, 64<<20))
				return stamp(t, x.attacker, pod, map[string]any{requeue.AnnotationJobSpec: packed})
			}},
		{name: "forge that its end is not for Airflow", unguarded: "kept from Airflow",
			try: func(t *testing.T, x *target, pod *corev1.Pod) error {
				return stamp(t, x.attacker, pod, map[string]any{requeue.AnnotationDiscarded: "true"})
			}},
		{name: "forge that its end is not for Airflow, as its node", unguarded: "kept from Airflow",
			try: func(t *testing.T, x *target, pod *corev1.Pod) error {
				return stamp(t, x.node, pod, map[string]any{requeue.AnnotationDiscarded: "true"}, "status")
			}},
		{name: "swap the job spec, as its node", unguarded: mismatch, undefended: "replaced by evil:1, as airflow-worker",
			try: func(t *testing.T, x *target, pod *corev1.Pod) error {
				packed, checksum := x.Sealer.Pack(evilSpec(t, pod, pod.Spec.ServiceAccountName))
				return stamp(t, x.node, pod, map[string]any{requeue.AnnotationJobSpec: packed, requeue.AnnotationJobSpecChecksum: checksum}, "status")
			}},
		{name: "forge a detachment that hides the pod's scheduler", unguarded: "kept from Airflow",
			try: func(t *testing.T, x *target, pod *corev1.Pod) error {
				return patchPod(t, x.attacker, pod, map[string]any{
					"labels":      map[string]any{requeue.LabelWorker: nil, requeue.LabelExecutorDone: "True"},
					"annotations": map[string]any{requeue.AnnotationDetached: "none", requeue.AnnotationSignature: "v1:k1:00"}})
			}},
		{name: "strip the finalizer, and take it off the watcher's list", unguarded: "kept from Airflow",
			try: func(t *testing.T, x *target, pod *corev1.Pod) error {
				return patchPod(t, x.attacker, pod, map[string]any{"finalizers": nil, "labels": map[string]any{requeue.LabelTracked: nil}})
			}},
	}
}

// airflow is the name of Airflow's account, which is no secret.
func (x *target) airflow() string { return "system:serviceaccount:" + x.Namespace + ":" + scheduler }

// evilPod is another pod under a pod's name, for the same task instance.
func evilPod(pod *corev1.Pod, account string) *corev1.Pod {
	other := workerPod(pod.Namespace, pod.Name)
	other.Annotations = map[string]string{}
	for _, name := range []string{"dag_id", "task_id", "run_id", "try_number"} {
		other.Annotations[name] = pod.Annotations[name]
	}
	other.Spec.ServiceAccountName = account
	other.Spec.Containers[0].Image, other.Spec.Containers[0].Args = evil, pod.Spec.Containers[0].Args
	return other
}

func evilSpec(t *testing.T, pod *corev1.Pod, account string) []byte {
	t.Helper()
	raw, err := json.Marshal(evilPod(pod, account))
	require.NoError(t, err)
	return raw
}

func stamp(t *testing.T, client kubernetes.Interface, pod *corev1.Pod, annotations map[string]any, subresources ...string) error {
	t.Helper()
	return patchPod(t, client, pod, map[string]any{"annotations": annotations}, subresources...)
}

func patchPod(t *testing.T, client kubernetes.Interface, pod *corev1.Pod, metadata map[string]any, subresources ...string) error {
	t.Helper()
	raw, err := json.Marshal(map[string]any{"metadata": metadata})
	require.NoError(t, err)
	_, err = client.CoreV1().Pods(pod.Namespace).Patch(t.Context(), pod.Name, types.MergePatchType, raw, metav1.PatchOptions{}, subresources...)
	return err
}

func anyOf(stamps map[string]string) map[string]any {
	all := map[string]any{}
	for name, value := range stamps {
		all[name] = value
	}
	return all
}

// stampsOf are all of a pod's.
func stampsOf(pod *corev1.Pod) map[string]any {
	all := map[string]any{}
	for _, name := range requeue.StampAnnotations() {
		if value, ok := pod.Annotations[name]; ok {
			all[name] = value
		}
	}
	return all
}

func TestAnAttackIsRefusedByThePolicy(t *testing.T) {
	x := newTarget(t, true, built)
	for i, a := range attacks() {
		t.Run(a.name, func(t *testing.T) {
			t.Parallel()
			pod := x.held(t, fmt.Sprintf("victim-%d", i))
			assert.ErrorContains(t, a.try(t, x, pod), refusedByPolicy)
			assert.Equal(t, "replaced by apache/airflow, as airflow-worker", x.fate(t, pod))
		})
	}
}

// TestAnAttackMeetsTheSealWithoutThePolicy shows what the policy is for, and what is left without it.
func TestAnAttackMeetsTheSealWithoutThePolicy(t *testing.T) {
	x := newTarget(t, false, built)
	for i, a := range attacks() {
		t.Run(a.name, func(t *testing.T) {
			t.Parallel()
			pod := x.held(t, fmt.Sprintf("victim-%d", i))
			require.NoError(t, a.try(t, x, pod))
			assert.Equal(t, a.unguarded, x.fate(t, pod))
		})
	}
}

// TestAnAttackSucceedsOnAWatcherWithoutItsDefence shows that the attacks which the seal withstands are good ones.
func TestAnAttackSucceedsOnAWatcherWithoutItsDefence(t *testing.T) {
	if !*planted {
		t.Skip("it builds a watcher without its defences: run make planted")
	}
	dir := t.TempDir()
	weak, err := programs.Build(t.Context(), dir, programs.Overlay(t, "../..", dir, []programs.Edit{
		{"pkg/requeue/seal.go", `if !hmac.Equal(got,`, `if false && !hmac.Equal(got,`},
		{"pkg/requeue/seal.go", `zstd.WithDecoderMaxMemory(maxJobSpec)`, `zstd.WithDecoderMaxMemory(1<<40)`},
		{"pkg/requeue/queueing.go", `(f.job.Ref.ID == "" ||`, `(true || f.job.Ref.ID == "" ||`},
	}), "watcher")
	require.NoError(t, err)
	x := newTarget(t, false, programs.Built{"watcher": weak["watcher"], "webhook": built["webhook"]})
	t.Run("by patch", func(t *testing.T) {
		for i, a := range attacks() {
			if a.undefended == "" {
				continue // the policy is all there is
			}
			t.Run(a.name, func(t *testing.T) {
				t.Parallel()
				pod := x.held(t, fmt.Sprintf("victim-%d", i))
				require.NoError(t, a.try(t, x, pod))
				assert.Equal(t, a.undefended, x.fate(t, pod))
			})
		}
	})
	for _, f := range forgeries() {
		t.Run(f.name, func(t *testing.T) { assert.Equal(t, f.undefended, f.fate(t, x)) })
	}
}
