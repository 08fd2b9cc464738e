package requeue

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
)

func TestAPodThatIsObservedIsStampedAsAHeldOneWithoutHoldAndFinalizer(t *testing.T) {
	s := sealer(t, keys("a", "a"))
	g := generator{rand.New(rand.NewPCG(8, 0))}
	for range 500 {
		pod := submittedPod(g)
		if _, revoked := pod.GetLabels()[LabelHold]; revoked {
			continue // the webhook does not stamp it
		}
		before := pod.DeepCopy()
		spec, err := JobSpec(pod)
		require.NoError(t, err)
		held := pod.DeepCopy()
		require.NoError(t, s.Stamp(held, "prod", "airflow", spec))

		require.NoError(t, s.Observe(pod, "prod", "airflow", spec))

		require.NotContains(t, pod.GetLabels(), LabelHold)
		require.Equal(t, before.GetFinalizers(), pod.GetFinalizers())
		want := held.GetAnnotations()
		want[AnnotationMode] = "observe"
		require.Equal(t, want, pod.GetAnnotations())
		require.True(t, Unstamp(pod))
		require.Equal(t, before, pod, "stamps are all that was added")
	}
}

func TestWhatCarriesOurHoldOrFinalizerIsNotObserved(t *testing.T) {
	for _, c := range []struct {
		name   string
		change change
		want   bool
	}{
		{"stamped in observe mode", all(), true},
		{"not tracked any more", noLabel(LabelTracked), false},
		{"stamped without a mode", annotation(AnnotationMode, ""), false},
		{"of a mode that is none", annotation(AnnotationMode, "watch"), false},
		{"a held pod that somebody annotated", label(LabelHold, HoldValue), false},
		{"a finalizer of ours, its hold lifted", onPod(func(p *corev1.Pod) { p.Finalizers = []string{Finalizer} }), false},
		{"revoked by Airflow", label(LabelHold, "True"), true},
		{"with another's finalizer", onPod(func(p *corev1.Pod) { p.Finalizers = []string{"example.com/other"} }), true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := given(noLabel(LabelHold), noFinalizer, annotation(AnnotationMode, ModeObserve), c.change)
			require.Equal(t, c.want, Observed(s.Pod))
		})
	}
}

// What is told of an observed pod is what the table says of the same pod, held.
func TestAnObservedPodIsDecidedOnAsIfItWereHeld(t *testing.T) {
	t.Parallel()
	decided := 0
	for _, s := range scenes(9, 20_000) {
		if !Tracked(s.Pod) || !Held(s.Pod) && !Revoked(s.Pod) || !hasFinalizer(s.Pod) {
			continue
		}
		want := s.decide()
		observed := *s.Pod.DeepCopy()
		if !Revoked(&observed) {
			delete(observed.Labels, LabelHold)
		}
		observed.Finalizers = nil
		observed.Annotations[AnnotationMode] = ModeObserve
		require.True(t, Observed(&observed))
		before := observed.DeepCopy()

		s.Pod = AsHeld(&observed, nil)

		require.Equal(t, want, s.decide())
		require.False(t, Observed(s.Pod))
		require.Equal(t, before, &observed, "the pod itself stays as it is")
		decided++
	}
	require.Greater(t, decided, 10_000, "the generator has become narrow")
}

func TestWhatWouldBeRecordedOnAnObservedPodIsSeenByTheNextDecision(t *testing.T) {
	s := given(onNode(), waiting("ErrImagePull", "503"), queued, noLabel(LabelHold), noFinalizer, annotation(AnnotationMode, ModeObserve))
	pod, recorded := s.Pod, map[string]string{}
	var actions []Action
	for range 3 {
		s.Pod = AsHeld(pod, recorded)
		d := s.decide()
		actions = append(actions, d.Action)
		for k, v := range d.Annotations {
			recorded[k] = v
		}
		s.now = s.now.Add(s.policy.ImagePullGrace)
	}
	require.Equal(t, []Action{Record, Record, Delete}, actions)
	require.NotContains(t, pod.Annotations, AnnotationReason)

	recorded[AnnotationReason] = "" // as a decision takes one off
	require.NotContains(t, AsHeld(pod, recorded).Annotations, AnnotationReason)
}
