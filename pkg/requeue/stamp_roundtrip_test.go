package requeue

import (
	"encoding/json"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// submittedPod makes up a pod that nobody has stamped, with some of what a pod may have beside our stamps.
func submittedPod(g generator) *unstructured.Unstructured {
	some := func(names ...string) map[string]any {
		m := map[string]any{}
		for _, n := range names {
			if g.one(2) {
				m[n] = pick(g, "", "x", "True")
			}
		}
		return m
	}
	list := func(items ...any) []any {
		var l []any
		for _, i := range items {
			if g.one(2) {
				l = append(l, i)
			}
		}
		return l
	}
	meta, spec := map[string]any{"name": "etl-load"}, map[string]any{"containers": []any{map[string]any{"name": "base"}}}
	if m := some(LabelWorker, LabelKubernetesExecutor, LabelHold, "team"); len(m) > 0 {
		meta["labels"] = m
	}
	if m := some(AnnotationMaxRetries, AnnotationBackoff, AnnotationExcludedReasons, "dag_id", prefix+"unheard-of"); len(m) > 0 {
		meta["annotations"] = m
	}
	if l := list("example.com/a", "example.com/b"); len(l) > 0 {
		meta["finalizers"] = l
	}
	if l := list(map[string]any{"name": "example.com/a"}, map[string]any{"name": "example.com/b"}); len(l) > 0 {
		spec["schedulingGates"] = l
	}
	if g.one(2) {
		spec["serviceAccountName"] = "airflow-worker"
	}
	return &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}}
}

func TestUnstampUndoesStamp(t *testing.T) {
	s := sealer(t, keys("a", "a"))
	g := generator{rand.New(rand.NewPCG(7, 0))}
	for range 2_000 {
		pod := submittedPod(g)
		before := pod.DeepCopy()
		require.False(t, Unstamp(pod), "there is nothing of ours")
		require.Equal(t, before, pod)
		if v, ok := pod.GetLabels()[LabelHold]; ok {
			require.NotEqual(t, HoldValue, v) // Airflow's own, which the webhook does not hold
			continue
		}

		spec, err := JobSpec(pod)
		require.NoError(t, err)
		require.NoError(t, s.Stamp(pod, "prod", "airflow", spec))
		stamped := pod.DeepCopy()
		require.True(t, Unstamp(pod))
		require.Equal(t, before, pod)
		require.False(t, Unstamp(pod), "once is enough")

		require.NoError(t, s.Stamp(pod, "prod", "airflow", spec))
		require.Equal(t, stamped, pod, "the webhook may be asked again")
		require.NoError(t, s.Stamp(pod, "prod", "airflow", spec))
		require.Equal(t, stamped, pod, "a stamp on a stamp is the same stamp")
	}
}

func TestUnstampLeavesNothingOfAReplacementButItsPlaceInTheChain(t *testing.T) {
	s := sealer(t, keys("a", "a"))
	old := admitted(t, s, plainPod(t))
	next := nextOf(1)
	next.AvoidNode = ""
	raw, err := s.Replacement(old, next, "etl-load-r1")
	require.NoError(t, err)
	pod := &unstructured.Unstructured{}
	require.NoError(t, pod.UnmarshalJSON(raw))
	pod.SetAnnotations(withAll(pod.GetAnnotations(), StampAnnotations()))
	require.True(t, Unstamp(pod))
	require.True(t, RemoveGate(pod), "what has lost its stamps still does not run")

	var want map[string]any
	require.NoError(t, json.Unmarshal(plainPod(t), &want))
	meta := want["metadata"].(map[string]any)
	meta["name"] = "etl-load-r1"
	delete(meta["labels"].(map[string]any), LabelWorker)
	got, err := pod.MarshalJSON()
	require.NoError(t, err)
	wanted, err := json.Marshal(want)
	require.NoError(t, err)
	require.JSONEq(t, string(wanted), string(got))
}

func withAll(m map[string]string, names []string) map[string]string {
	for _, n := range names {
		m[n] = "forged"
	}
	return m
}

func TestUnstampFindsEveryStampAlone(t *testing.T) {
	find := func(change func(*unstructured.Unstructured)) {
		pod := &unstructured.Unstructured{}
		require.NoError(t, pod.UnmarshalJSON(plainPod(t)))
		want := pod.DeepCopy()
		change(pod)
		require.NotEqual(t, want, pod)
		require.True(t, Unstamp(pod) || RemoveGate(pod))
		require.Equal(t, want, pod)
	}
	for name, value := range map[string]string{LabelHold: HoldValue, LabelTracked: "prod", LabelReplaced: ""} {
		find(func(pod *unstructured.Unstructured) {
			labels := pod.GetLabels()
			labels[name] = value
			pod.SetLabels(labels)
		})
	}
	for _, name := range StampAnnotations() {
		find(func(pod *unstructured.Unstructured) {
			pod.SetAnnotations(withAll(pod.GetAnnotations(), []string{name}))
		})
	}
	find(func(pod *unstructured.Unstructured) { pod.SetFinalizers([]string{Finalizer}) })
	find(func(pod *unstructured.Unstructured) {
		gates := []any{map[string]any{"name": SchedulingGate}}
		require.NoError(t, unstructured.SetNestedSlice(pod.Object, gates, "spec", "schedulingGates"))
	})
}

func TestUnstampTakesTuningForWhatItIs(t *testing.T) {
	for _, name := range tuningAnnotations() {
		require.NotContains(t, StampAnnotations(), name)
	}
}

// Every name under our prefix is either tuning or never believed on the way in.
func TestEveryAnnotationOfOursIsAStampOrTuning(t *testing.T) {
	pod := given(failed, asReplacement, detached, reasonRecorded("x", "x"), waitingSince(noon(), "x"), annotation(AnnotationReleasedAt, "x"),
		annotation(AnnotationDiscarded, "x"), annotation(AnnotationReplacedAt, "x"), annotation(AnnotationJobSpec, "x"),
		annotation(AnnotationMode, "x"), annotation(AnnotationUndoing, "x")).Pod
	for name := range pod.Annotations {
		if name != annotationTryNumber {
			require.Contains(t, StampAnnotations(), name)
		}
	}
	require.Len(t, StampAnnotations(), len(pod.Annotations)-1, "a stamp that no pod carries")
}

func TestJobSpecLeavesOutWhatOnlyTheAPIServerWrites(t *testing.T) {
	pod := &unstructured.Unstructured{}
	require.NoError(t, pod.UnmarshalJSON([]byte(oddPod)))
	before := pod.DeepCopy()
	raw, err := JobSpec(pod)
	require.NoError(t, err)
	require.Equal(t, before, pod, "the pod itself stays as it is")
	want := exact(t, []byte(oddPod))
	delete(want, "status")
	for _, field := range []string{"uid", "creationTimestamp", "generation", "resourceVersion", "managedFields", "selfLink"} {
		delete(want["metadata"].(map[string]any), field)
	}
	require.Equal(t, want, exact(t, raw))
}
