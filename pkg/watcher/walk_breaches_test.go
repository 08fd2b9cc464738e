package watcher_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/airflow-requeue/airflow-requeue/internal/history"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// madeUp is a pod of a made-up history: held, tracked, attached and Pending, but for what changes say.
func madeUp(name string, changes ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID("uid of " + name), Finalizers: []string{requeue.Finalizer},
			Labels:      map[string]string{requeue.LabelWorker: "1", requeue.LabelHold: requeue.HoldValue, requeue.LabelTracked: installation},
			Annotations: map[string]string{requeue.AnnotationOrigin: "first", requeue.AnnotationMaxRetries: "1", requeue.AnnotationAttempt: "0"}},
		Status: corev1.PodStatus{Phase: corev1.PodPending},
	}
	for _, change := range changes {
		change(p)
	}
	return p
}

func failedNow(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }

func outOfSight(p *corev1.Pod) {
	delete(p.Labels, requeue.LabelWorker)
	p.Labels[requeue.LabelExecutorDone] = "True"
	p.Annotations[requeue.AnnotationDetached] = "1"
}

func letGo(p *corev1.Pod) {
	delete(p.Labels, requeue.LabelTracked)
	p.Finalizers = nil
}

func unheldNow(p *corev1.Pod) { delete(p.Labels, requeue.LabelHold) }

func revokedNow(p *corev1.Pod) { p.Labels[requeue.LabelHold] = "True" }

func deletedNow(p *corev1.Pod) { p.DeletionTimestamp = &metav1.Time{} }

func gatedNow(p *corev1.Pod) {
	p.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: requeue.SchedulingGate}}
}

func committedNow(p *corev1.Pod) { p.Annotations[requeue.AnnotationCommitted] = "true" }

func notAttached(p *corev1.Pod) { delete(p.Labels, requeue.LabelWorker) }

// replaces makes a pod the replacement of another.
func replaces(name, attempt string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Annotations[requeue.AnnotationRequeueOf], p.Annotations[requeue.AnnotationAttempt] = "uid of "+name, attempt
	}
}

func TestTheWalkSeesEveryPromiseThatIsBrokenOnTheWay(t *testing.T) {
	t.Parallel()
	second := replaces("first", "1")
	for _, tt := range []struct {
		name string
		seen []*corev1.Pod
		want []string
	}{
		{name: "a requeue as it should be", seen: []*corev1.Pod{
			madeUp("first"), madeUp("first", failedNow), madeUp("first", failedNow, outOfSight),
			madeUp("second", second, gatedNow, notAttached), madeUp("second", second, gatedNow, committedNow),
			madeUp("first", failedNow, outOfSight, letGo), madeUp("second", second, committedNow),
		}},
		{name: "two attached", seen: []*corev1.Pod{madeUp("first", failedNow), madeUp("second", second, gatedNow)},
			want: []string{"two pods of a chain carry airflow-worker: [first second]"}},
		{name: "two that may run", seen: []*corev1.Pod{madeUp("first"), madeUp("second", second, committedNow, notAttached)},
			want: []string{"two pods of a chain may run: [first second]"}},
		{name: "two replacements at a time", seen: []*corev1.Pod{
			madeUp("second", second, gatedNow, notAttached), madeUp("third", second, gatedNow, notAttached)},
			want: []string{"one pod has two replacements: [second third]"}},
		{name: "two replacements, one after the other", seen: []*corev1.Pod{
			madeUp("second", second, gatedNow, committedNow, failedNow, outOfSight), madeUp("third", second, gatedNow, committedNow)},
			want: []string{"one pod has two replacements: [second third]", "two replacements of one pod were committed, third the second"}},
		{name: "one that runs uncommitted", seen: []*corev1.Pod{madeUp("second", second)},
			want: []string{"second may run and was never committed"}},
		{name: "one too many", seen: []*corev1.Pod{madeUp("third", replaces("second", "2"), gatedNow)},
			want: []string{"third is attempt 2 of at most 1"}},
		{name: "a revocation that is undone", seen: []*corev1.Pod{madeUp("first"), madeUp("first", revokedNow), madeUp("first", unheldNow)},
			want: []string{"first was revoked by Airflow, and is no longer"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := history.New()
			h.LateAdoption()
			for _, p := range tt.seen {
				h.See(watch.Modified, p)
			}
			require.Equal(t, tt.want, append(h.AllBroken(), breachesOf(h.Moments())...))
		})
	}
}

func TestTheWalkSeesEveryPodThatIsNotSettled(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		pod  *corev1.Pod
		want string
	}{
		{"alive and held", madeUp("a"), ""},
		{"let go", madeUp("a", unheldNow, letGo), ""},
		{"reported", madeUp("a", failedNow, unheldNow, letGo), ""},
		{"a tombstone", madeUp("a", failedNow, outOfSight, letGo), ""},
		{"revoked", madeUp("a", revokedNow, letGo, deletedNow), ""},
		{"failed", madeUp("a", failedNow), "is over and still tracked"},
		{"on its way out", madeUp("a", deletedNow), "is over and still tracked"},
		{"gated", madeUp("a", gatedNow), "is still gated"},
		{"out of sight and alive", madeUp("a", outOfSight), "is alive and tracked, but not attached"},
		{"without its finalizer", madeUp("a", func(p *corev1.Pod) { p.Finalizers = nil }), "has one of label and finalizer"},
		{"with its finalizer left", madeUp("a", unheldNow, letGo, func(p *corev1.Pod) { p.Finalizers = []string{requeue.Finalizer} }),
			"has one of label and finalizer"},
		{"failed, held and forgotten", madeUp("a", failedNow, letGo), "is attached and held, and nobody tracks it"},
		{"alive, held and forgotten", madeUp("a", outOfSight, letGo), "is alive and held, and nobody tracks it"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, tt.want, unsettled(tt.pod))
		})
	}
}
