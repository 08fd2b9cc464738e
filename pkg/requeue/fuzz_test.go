package requeue

import (
	"encoding/json"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
)

// FuzzDecide looks for a scene, with any text at one place of it, whose decision breaks a promise, changes what it looks
// at, or is another when it is made again or of the pod as the API server sends it.
func FuzzDecide(f *testing.F) {
	promises := promises()
	f.Fuzz(func(t *testing.T, choices []byte, place uint8, text string) {
		s := generator{rand.New(&chosen{rest: rand.NewPCG(1, 1), bytes: choices})}.scene()
		if places := placesForText(); int(place) < len(places) {
			places[place](&s, strings.ToValidUTF8(text, "?"))
		}
		if !Tracked(s.Pod) { // nobody asks
			return
		}
		before, siblings := s.Pod.DeepCopy(), slices.Clone(s.Siblings.Pods)
		d := s.decide()

		require.Equal(t, before, s.Pod)
		require.Equal(t, siblings, s.Siblings.Pods)
		require.Equal(t, d, s.decide())
		require.Equal(t, d, s.with(func(s *scene) { s.Pod = asSent(t, s.Pod) }).decide())
		for _, p := range promises {
			require.True(t, !p.of(s, d) || p.kept(s, d), "broken: %s\n%+v\n%s", p.name, d, full{s})
		}
	})
}

// chosen is a source of the generator's choices: a byte for each, and chance when there are no more, which a choice that
// is made again and again needs.
type chosen struct {
	bytes []byte
	rest  rand.Source
}

func (c *chosen) Uint64() uint64 {
	if len(c.bytes) == 0 {
		return c.rest.Uint64()
	}
	b := uint64(c.bytes[0])
	c.bytes = c.bytes[1:]
	return b * 0x0101_0101_0101_0101 // some choices go by the highest bits, others by the lowest
}

// placesForText are where a text of somebody else's gets into a decision: from people, kubelet, database and API server.
func placesForText() []func(s *scene, text string) {
	var places []func(s *scene, text string)
	for _, name := range []string{
		AnnotationAttempt, AnnotationOrigin, AnnotationRequeueOf, AnnotationQueuedAt, AnnotationNotBefore, AnnotationCommitted,
		AnnotationDetached, AnnotationUndoing, AnnotationReason, AnnotationMessage, AnnotationWaitingSince, AnnotationReleasedAt,
		AnnotationDiscarded, AnnotationReplacedAt, AnnotationMode, AnnotationCallbackID, annotationTryNumber,
	} {
		places = append(places, func(s *scene, text string) { s.Pod.Annotations[name] = text })
	}
	for _, name := range []string{LabelHold, LabelTracked, LabelWorker, LabelExecutorDone, LabelKubernetesExecutor} {
		places = append(places, func(s *scene, text string) { s.Pod.Labels[name] = text })
	}
	for _, name := range tuningAnnotations() {
		places = append(places, func(s *scene, text string) {
			if s.Seal.State == SealValid {
				s.Seal.Job.Tuning = map[string]string{name: text}
			}
		})
	}
	return append(places,
		func(s *scene, text string) { s.Pod.Status.Reason = text },
		func(s *scene, text string) { s.Pod.Status.Phase = corev1.PodPhase(text) },
		func(s *scene, text string) { s.Pod.Status.Message = text },
		func(s *scene, text string) { s.Row.Task.Hostname = text },
		func(s *scene, text string) { s.Row.Task.ID = text },
		func(s *scene, text string) { s.Refused.Message = text },
		func(s *scene, text string) {
			containerIn(BaseContainer, corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: text}})(s)
		},
		func(s *scene, text string) {
			containerIn(BaseContainer, corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ErrImagePull", Message: text}})(s)
		},
		func(s *scene, text string) {
			containerIn(BaseContainer, corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Reason: text, ExitCode: 1}})(s)
		},
	)
}

// asSent is the pod as the API server sends it.
func asSent(t *testing.T, pod *corev1.Pod) *corev1.Pod {
	t.Helper()
	raw, err := json.Marshal(pod)
	require.NoError(t, err)
	sent := &corev1.Pod{}
	require.NoError(t, json.Unmarshal(raw, sent))
	return sent
}
