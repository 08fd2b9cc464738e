package mutate

import (
	"encoding/base64"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// markCases are in the order of Mark's own checks. Every case is run twice: as it is, and with forged stamps on the pod.
func markCases() []markCase {
	return []markCase{
		{"a pod of Airflow's is held", nil, Result{Outcome: Held}},
		{"a pod of a user in one of Airflow's groups is held", func(a *admission) {
			a.req.User, a.req.Groups = "anna", []string{"system:authenticated", "airflow-schedulers"}
		}, Result{Outcome: Held}},
		{"a pod with a max-retries of its own is held", annotate(requeue.AnnotationMaxRetries, "-1"), Result{Outcome: Held}},
		{"a pod whose annotation switches retries on is held", func(a *admission) {
			a.marker.Policy.MaxRetries = 0
			a.with(annotate(requeue.AnnotationMaxRetries, "1"))
		}, Result{Outcome: Held}},
		{"a tuning annotation that can't be read is a warning", annotate(requeue.AnnotationBackoff, "soon"),
			Result{Outcome: Held, Warnings: []string{
				`annotation airflow-requeue.dev/backoff: "soon" is not a duration such as "90s" or "2m"; using 5s`}}},
		{"a max-retries above the operator's cap is a warning", func(a *admission) {
			a.marker.Policy.MaxRetriesCap = 3
			a.with(annotate(requeue.AnnotationMaxRetries, "-1"))
		}, Result{Outcome: Held, Warnings: []string{
			"annotation airflow-requeue.dev/max-retries: -1 is more than the operator allows; using 3"}}},
		{"a pod of another executor is not touched", label(requeue.LabelKubernetesExecutor, "False"), Result{Outcome: NotExecutorPod}},
		{"a pod without labels is not touched", without("metadata", "labels"), Result{Outcome: NotExecutorPod}},
		{"a pod in another namespace goes unheld", func(a *admission) { a.req.Namespace = "other" }, Result{Outcome: OtherNamespace}},
		{"a pod of another user goes unheld", func(a *admission) { a.req.User = "anna" }, Result{Outcome: OtherUser}},
		{"a pod of the watcher's without a seal goes unheld", func(a *admission) { a.req.User = watcherUser }, Result{Outcome: OtherUser}},
		{"a pod of nobody goes unheld", func(a *admission) { a.req.User = "" }, Result{Outcome: OtherUser}},
		{"a label that is not a string leaves the pod unheld", label("number", int64(1)), Result{Outcome: Malformed}},
		{"an annotation that is not a string leaves the pod unheld", annotate("number", int64(1)), Result{Outcome: Malformed}},
		{"a callback goes unheld", annotate(requeue.AnnotationCallbackID, "7"), Result{Outcome: Callback}},
		{"a pod that Airflow revoked goes unheld", label(requeue.LabelHold, "True"), Result{Outcome: Revoked}},
		{"a pod with the mere key of a revocation goes unheld", label(requeue.LabelHold, ""), Result{Outcome: Revoked}},
		{"a pod that the API server is to name goes unheld", func(a *admission) {
			a.with(without("metadata", "name"))
			a.pod.SetGenerateName("etl-load-")
		}, Result{Outcome: NoName}},
		{"a pod with a node of its own goes unheld", func(a *admission) { set(a.pod, "node-1", "spec", "nodeName") }, Result{Outcome: NodeName}},
		{"an empty nodeName is none", func(a *admission) { set(a.pod, "", "spec", "nodeName") }, Result{Outcome: Held}},
		{"a pod of Kueue's goes unheld", label(requeue.LabelKueueQueue, "batch"), Result{Outcome: Kueue}},
		{"a pod with retries off goes unheld", annotate(requeue.AnnotationMaxRetries, "0"), Result{Outcome: RetriesOff}},
		{"a pod goes unheld where retries are off", func(a *admission) { a.marker.Policy.MaxRetries = 0 }, Result{Outcome: RetriesOff}},
		{"a pod of an Airflow that is too old goes unheld", label(requeue.LabelAirflowVersion, "2.10.3-composer"),
			Result{Outcome: UnsupportedAirflow, Airflow: requeue.Airflow{Major: 2, Minor: 10, Patch: 3}}},
		{"a pod of an Airflow that is too old is held where the operator says so", func(a *admission) {
			a.marker.AnyAirflow = true
			a.with(label(requeue.LabelAirflowVersion, "2.10.3"))
		}, Result{Outcome: Held}},
		{"a pod of the oldest Airflow that is supported is held", label(requeue.LabelAirflowVersion, "2.10.4rc1"), Result{Outcome: Held}},
		{"a pod whose Airflow can't be told is held", label(requeue.LabelAirflowVersion, "main"), Result{Outcome: Held}},
		{"a pod that names no Airflow is held", without("metadata", "labels", requeue.LabelAirflowVersion), Result{Outcome: Held}},
		{"a pod goes unheld while no watcher is ready", func(a *admission) { a.req.LeaderReady = false }, Result{Outcome: NoLeader}},
		{"a pod too large for etcd with stamps goes unheld", annotate("large", strings.Repeat("x", maxJobSpec)), Result{Outcome: TooLarge}},
		{"a pod that names no task instance goes unheld", without("metadata", "annotations", "task_id"), Result{Outcome: NotTaskInstance}},
		{"a job spec that fits in no annotation leaves the pod unheld", noise(200 << 10), Result{Outcome: TooLarge}},
		{"a job spec that fits is kept", noise(120 << 10), Result{Outcome: Held}},
		{"a pod whose own annotations leave no room goes unheld", annotate("large", strings.Repeat("x", maxAnnotations-800)), Result{Outcome: TooLarge}},
	}
}

type markCase struct {
	name   string
	change func(*admission)
	want   Result
}

func TestMark(t *testing.T) {
	for _, c := range markCases() {
		t.Run(c.name, func(t *testing.T) {
			a := newAdmission(t).with(changes(c.change)...)
			submitted := a.pod.DeepCopy()

			require.Equal(t, c.want, a.result(t))

			if c.want.Outcome != Held {
				assert.Equal(t, submitted, a.pod, "touches nothing")
				return
			}
			stamped := a.pod.DeepCopy()
			assertHeld(t, a)
			require.True(t, requeue.Unstamp(a.pod))
			assert.Equal(t, submitted, a.pod, "stamps are all that was added")

			a.pod = stamped.DeepCopy()
			require.Equal(t, c.want, a.result(t), "marked again")
			assert.Equal(t, stamped, a.pod, "marked again")
		})
		t.Run(c.name+", with forged stamps", func(t *testing.T) {
			clean := newAdmission(t).with(changes(c.change)...)
			a := newAdmission(t).with(changes(c.change)...).with(forge)
			forged := a.pod.DeepCopy()
			require.Equal(t, c.want, clean.result(t))

			require.Equal(t, c.want, a.result(t))

			if c.want.Outcome == NotExecutorPod {
				assert.Equal(t, forged, a.pod)
				return
			}
			if c.want.Outcome == OtherNamespace || c.want.Outcome == OtherUser {
				require.True(t, requeue.RemoveGate(a.pod), "should it be the watcher after all, its pod never runs")
			}
			assert.Equal(t, clean.pod, a.pod, "as if they had never been there")
		})
	}
}

// result is Mark's without the error, which must be there when one is promised.
func (a *admission) result(t *testing.T) Result {
	t.Helper()
	got := a.mark()
	assert.Equal(t, got.Outcome == NotTaskInstance, got.Err != nil)
	got.Err = nil
	return got
}

func assertHeld(t *testing.T, a *admission) {
	t.Helper()
	pod := typed(t, a.pod)
	pod.Namespace = a.req.Namespace
	seal := a.marker.Sealer.Verify(pod)
	require.Equal(t, requeue.SealValid, seal.State, seal.Error)
	assert.Equal(t, requeue.Key{DagID: "etl", TaskID: "load", RunID: "manual__1", MapIndex: -1}, seal.Job.Ref.Key)
	assert.True(t, requeue.Held(pod))
	assert.Equal(t, "airflow-requeue", pod.Labels[requeue.LabelTracked])
	assert.Equal(t, []string{requeue.Finalizer}, pod.Finalizers)
	assert.Equal(t, "0", pod.Annotations[requeue.AnnotationAttempt])
	assert.Equal(t, pod.Name, pod.Annotations[requeue.AnnotationOrigin])
	assert.True(t, requeue.Attached(pod), "airflow-worker stays")
}

func changes(change func(*admission)) []func(*admission) {
	if change == nil {
		return nil
	}
	return []func(*admission){change}
}

// noise makes a job spec of about n bytes that can't be compressed below n.
func noise(n int) func(*admission) {
	raw := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{}).Read(raw) // never fails
	return func(a *admission) {
		set(a.pod, base64.StdEncoding.EncodeToString(raw), "spec", "containers0", "noise")
	}
}

func TestMarkReasonsComeInOrder(t *testing.T) {
	a := newAdmission(t)
	for _, c := range markCases() {
		switch c.want.Outcome {
		case Held, NotExecutorPod, Malformed, NoName, OtherNamespace, OtherUser, NotTaskInstance, TooLarge:
		default:
			a.with(c.change)
		}
	}
	a.with(annotate("number", int64(1)), without("metadata", "annotations", "task_id"), noise(maxJobSpec),
		without("metadata", "name"), label(requeue.LabelKubernetesExecutor, "False"))
	a.req = Request{Namespace: "other", User: "anna"}
	a.marker.Policy.MaxRetries = 0

	for _, step := range []struct {
		want Outcome
		mend func(*admission)
	}{
		{NotExecutorPod, label(requeue.LabelKubernetesExecutor, "True")},
		{OtherNamespace, func(a *admission) { a.req.Namespace = namespace }},
		{OtherUser, func(a *admission) { a.req.User = schedulerUser }},
		{Malformed, without("metadata", "annotations", "number")},
		{Callback, without("metadata", "annotations", requeue.AnnotationCallbackID)},
		{Revoked, without("metadata", "labels", requeue.LabelHold)},
		{NoName, func(a *admission) { a.pod.SetName("etl-load-x") }},
		{NodeName, without("spec", "nodeName")},
		{Kueue, without("metadata", "labels", requeue.LabelKueueQueue)},
		{RetriesOff, annotate(requeue.AnnotationMaxRetries, "1")},
		{UnsupportedAirflow, label(requeue.LabelAirflowVersion, "3.3.2")},
		{NoLeader, func(a *admission) { a.req.LeaderReady = true }},
		{TooLarge, noise(200 << 10)},
		{NotTaskInstance, annotate("task_id", "load")},
		{TooLarge, without("spec", "containers0")},
		{Held, nil},
	} {
		require.Equal(t, step.want, a.mark().Outcome)
		if step.mend != nil {
			a.with(step.mend)
		}
	}
}

func TestMarkLetsTheWatchersReplacementsPass(t *testing.T) {
	held := func(t *testing.T) *admission {
		t.Helper()
		a := newAdmission(t)
		require.Equal(t, Held, a.mark().Outcome)
		a.req.User = watcherUser
		return a
	}
	t.Run("a replacement passes as it came", func(t *testing.T) {
		a := held(t)
		old := typed(t, a.pod)
		old.Namespace, old.UID = namespace, "uid-0"
		raw, err := a.marker.Sealer.Replacement(old, requeue.Next{Attempt: 1}, "replacement")
		require.NoError(t, err)
		a.pod = decode(t, raw)

		assert.Equal(t, Result{Outcome: FromWatcher}, a.mark())

		assert.Equal(t, decode(t, raw), a.pod)
	})
	t.Run("a key that is not mounted here yet is left to the watcher", func(t *testing.T) {
		a := held(t)
		stamped := a.pod.DeepCopy()
		other := keys()
		other.Current, other.Secrets = "b", map[string][]byte{"b": make([]byte, requeue.MinKeyBytes)}
		a.marker.Sealer = sealerWith(t, other)

		assert.Equal(t, Result{Outcome: FromWatcher}, a.mark())

		assert.Equal(t, stamped, a.pod)
	})
	t.Run("a replacement of a pod that was held passes in observe mode", func(t *testing.T) {
		a := held(t)
		a.marker.Observe = true
		stamped := a.pod.DeepCopy()

		assert.Equal(t, Result{Outcome: FromWatcher}, a.mark())

		assert.Equal(t, stamped, a.pod)
	})
	t.Run("no leader is needed", func(t *testing.T) {
		a := held(t)
		a.req.LeaderReady = false
		assert.Equal(t, FromWatcher, a.mark().Outcome)
	})
	for name, spoil := range map[string]func(*admission){
		"another name":            func(a *admission) { a.pod.SetName("another") },
		"another service account": func(a *admission) { set(a.pod, "admin", "spec", "serviceAccountName") },
		"another namespace": func(a *admission) {
			a.req.Namespace = "other"
			a.marker.Namespaces = []string{"other"}
		},
		"another attempt":  annotate(requeue.AnnotationAttempt, "3"),
		"another job spec": annotate(requeue.AnnotationJobSpec, "forged"),
	} {
		t.Run("a seal is not good for "+name, func(t *testing.T) {
			a := held(t).with(spoil)
			want := a.pod.DeepCopy()
			require.True(t, requeue.Unstamp(want))

			assert.Equal(t, Result{Outcome: OtherUser}, a.mark())

			assert.Equal(t, want, a.pod)
		})
	}
}

// In observe mode what would be held is observed, and all else is as it is.
func TestMarkHoldsNothingInObserveMode(t *testing.T) {
	observing := func(a *admission) { a.marker.Observe = true }
	for _, c := range markCases() {
		for name, forged := range map[string]func(*admission){"": nil, ", with forged stamps": forge} {
			t.Run(c.name+name, func(t *testing.T) {
				enforced := newAdmission(t).with(changes(c.change)...)
				submitted := enforced.pod.DeepCopy()
				enforced.mark()
				a := newAdmission(t).with(changes(c.change)...).with(changes(forged)...).with(observing)
				want := c.want
				want.Warnings = nil
				if want.Outcome == Held {
					want.Outcome = Observed
				}

				require.Equal(t, want, a.result(t))

				if want.Outcome != Observed {
					if forged == nil {
						assert.Equal(t, submitted, a.pod, "touches nothing")
					}
					return
				}
				pod := typed(t, a.pod)
				assert.True(t, requeue.Observed(pod))
				assert.Empty(t, pod.Finalizers)
				pod.Namespace = namespace
				seal := a.marker.Sealer.Verify(pod)
				require.Equal(t, requeue.SealValid, seal.State, seal.Error)
				assert.Equal(t, typed(t, enforced.pod).Annotations[requeue.AnnotationSignature], pod.Annotations[requeue.AnnotationSignature])
				stamped := a.pod.DeepCopy()
				require.Equal(t, want, a.result(t), "marked again")
				assert.Equal(t, stamped, a.pod, "marked again")
				require.True(t, requeue.Unstamp(a.pod))
				assert.Equal(t, submitted, a.pod, "stamps are all that was added")
			})
		}
	}
}

func TestMarkBelievesNoModeThatAPodComesWith(t *testing.T) {
	a := newAdmission(t).with(annotate(requeue.AnnotationMode, requeue.ModeObserve))

	require.Equal(t, Held, a.mark().Outcome)

	assertHeld(t, a)
	assert.NotContains(t, typed(t, a.pod).Annotations, requeue.AnnotationMode)
}

func TestMarkLeavesAPodUnheldWhenItCanNotSign(t *testing.T) {
	a := newAdmission(t)
	a.marker.Sealer = sealerWith(t, requeue.Keys{})
	submitted := a.pod.DeepCopy()

	got := a.with(forge).mark()

	assert.Equal(t, Internal, got.Outcome)
	assert.EqualError(t, got.Err, "signing the stamps: no current key")
	assert.Equal(t, submitted, a.pod)
}
