package watcher

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/airflow-requeue/airflow-requeue/internal/executor"
	"github.com/airflow-requeue/airflow-requeue/internal/world"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

func aStampedPod(t *testing.T) (*requeue.Sealer, *corev1.Pod) {
	t.Helper()
	keys := requeue.Keys{Current: "k1", Secrets: map[string][]byte{"k1": []byte("a secret of the tests, 32 bytes or more")}}
	sealer, err := requeue.NewSealer(func() requeue.Keys { return keys })
	require.NoError(t, err)
	pod, err := world.Stamped(sealer, "airflow-requeue", "airflow", executor.NewTask("etl", "load", "manual__1", time.Now()))
	require.NoError(t, err)
	pod.UID, pod.ResourceVersion, pod.Spec.NodeName = "uid-1", "1", "node-1"
	pod.CreationTimestamp = metav1.NewTime(time.Unix(1_770_000_000, 0))
	pod.Status = corev1.PodStatus{Phase: corev1.PodPending, ContainerStatuses: []corev1.ContainerStatus{{Name: "base",
		State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ContainerCreating"}}}}}
	return sealer, pod
}

func TestATrackedPodIsDecidedOnAsItCameButForItsJobSpec(t *testing.T) {
	t.Parallel()
	sealer, pod := aStampedPod(t)
	tracked, err := track(pod, sealer, nil)
	require.NoError(t, err)

	want := slimmed(pod)
	assert.NotContains(t, want.Annotations, requeue.AnnotationJobSpec)
	assert.Equal(t, "v1", want.Annotations[requeue.AnnotationSignature])
	held := tracked.held()
	assert.Equal(t, want, held.Pod)
	assert.Equal(t, sealer.Verify(pod).Job.Ref, held.seal.Job.Ref)
	assert.Equal(t, requeue.SealValid, held.seal.State)
	assert.Equal(t, cache.NewObjectName("airflow", pod.Name), tracked.objectName())
}

func TestASealIsVerifiedAnewWhenAnyOfItHasChanged(t *testing.T) {
	t.Parallel()
	sealer, pod := aStampedPod(t)
	first, err := track(pod, sealer, nil)
	require.NoError(t, err)

	ended := pod.DeepCopy()
	ended.ResourceVersion, ended.Status.Phase = "2", corev1.PodFailed
	again, err := track(ended, sealer, first)
	require.NoError(t, err)
	assert.Same(t, first.seal, again.seal, "no stamp has changed")
	assert.Equal(t, corev1.PodFailed, again.held().Status.Phase)

	for name, meddle := range map[string]func(*corev1.Pod){
		"the job spec":        func(p *corev1.Pod) { p.Annotations[requeue.AnnotationJobSpec] += "=" },
		"the checksum":        func(p *corev1.Pod) { p.Annotations[requeue.AnnotationJobSpecChecksum] = "sha256:00" },
		"the signature":       func(p *corev1.Pod) { p.Annotations[requeue.AnnotationSignature] = "v1:k1:00" },
		"the attempt":         func(p *corev1.Pod) { p.Annotations[requeue.AnnotationAttempt] = "7" },
		"the origin":          func(p *corev1.Pod) { p.Annotations[requeue.AnnotationOrigin] = "another" },
		"the service account": func(p *corev1.Pod) { p.Spec.ServiceAccountName = "another" },
		"the predecessor":     func(p *corev1.Pod) { p.Annotations[requeue.AnnotationRequeueOf] = "uid-0" },
	} {
		forged := ended.DeepCopy()
		meddle(forged)
		tracked, err := track(forged, sealer, first)
		require.NoError(t, err)
		assert.Equal(t, requeue.SealBad, tracked.seal.State, name)
	}
	other := ended.DeepCopy()
	other.UID = "uid-2"
	tracked, err := track(other, sealer, first)
	require.NoError(t, err)
	assert.NotSame(t, first.seal, tracked.seal, "another pod of the same name")
}

func TestAVerdictIsNotKeptWhenItsKeyIsGone(t *testing.T) {
	t.Parallel()
	_, pod := aStampedPod(t)
	keys := requeue.Keys{Current: "k1", Secrets: map[string][]byte{"k1": []byte("a secret of the tests, 32 bytes or more")}}
	sealer, err := requeue.NewSealer(func() requeue.Keys { return keys })
	require.NoError(t, err)
	first, err := track(pod, sealer, nil)
	require.NoError(t, err)
	require.Equal(t, requeue.SealValid, first.seal.State)
	keys = requeue.Keys{Current: "k2", Secrets: map[string][]byte{"k2": []byte("another secret, which is 32 bytes or more")}}
	later, err := track(pod, sealer, first)
	require.NoError(t, err)
	assert.Equal(t, requeue.SealUnknownKey, later.seal.State)
}

func TestOneSyncHasAPodInHand(t *testing.T) {
	t.Parallel()
	m := newMemory()
	require.True(t, m.take("a"))
	require.True(t, m.take("b"))
	require.False(t, m.leave("b"), "nobody asked")
	require.False(t, m.take("a"))
	require.True(t, m.leave("a"), "somebody asked meanwhile")
	require.True(t, m.take("a"))
}
