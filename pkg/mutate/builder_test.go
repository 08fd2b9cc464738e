package mutate

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utiljson "k8s.io/apimachinery/pkg/util/json"

	"github.com/airflow-requeue/airflow-requeue/internal/executor"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

const (
	schedulerUser = "system:serviceaccount:airflow:airflow-scheduler"
	watcherUser   = "system:serviceaccount:airflow:airflow-requeue-watcher"
	namespace     = "airflow"
)

func keys() requeue.Keys {
	return requeue.Keys{Current: "a", Secrets: map[string][]byte{"a": bytes.Repeat([]byte("a"), requeue.MinKeyBytes)}}
}

func sealerWith(tb testing.TB, keys requeue.Keys) *requeue.Sealer {
	tb.Helper()
	sealer, err := requeue.NewSealer(func() requeue.Keys { return keys })
	require.NoError(tb, err)
	return sealer
}

// admission is the one builder: a pod as Airflow submits it, on its way through the webhook of its installation.
type admission struct {
	pod    *unstructured.Unstructured
	req    Request
	marker Marker
}

func newAdmission(tb testing.TB) *admission {
	tb.Helper()
	task := executor.Task{
		Key:          requeue.Key{DagID: "etl", TaskID: "load", RunID: "manual__1", MapIndex: -1},
		ID:           "019522a5-0000-7000-8000-000000000001",
		DagVersionID: "019522a5-0000-7000-8000-000000000002",
		TokenID:      "019522a5-0000-7000-8000-000000000003",
		Suffix:       "x7k2m9qa",
		TryNumber:    1,
		JobID:        1,
		QueuedAt:     time.Unix(1_772_366_400, 0),
	}
	raw, err := json.Marshal(executor.Pod(task))
	require.NoError(tb, err)
	pod := decode(tb, raw)
	set(pod, "Pod", "kind")
	set(pod, "v1", "apiVersion")
	return &admission{
		pod: pod,
		req: Request{Namespace: namespace, User: schedulerUser, LeaderReady: true},
		marker: Marker{
			Installation:  "airflow-requeue",
			Namespaces:    []string{namespace},
			WatcherUser:   watcherUser,
			AirflowUsers:  []string{schedulerUser},
			AirflowGroups: []string{"airflow-schedulers"},
			Policy:        requeue.DefaultPolicy(),
			Sealer:        sealerWith(tb, keys()),
		},
	}
}

// with is for changes that make a case.
func (a *admission) with(changes ...func(*admission)) *admission {
	for _, change := range changes {
		change(a)
	}
	return a
}

func (a *admission) mark() Result { return a.marker.Mark(a.pod, a.req) }

// forge puts stamps on the pod that nobody signed.
func forge(a *admission) {
	for _, annotation := range []string{requeue.AnnotationAttempt, requeue.AnnotationJobSpec, requeue.AnnotationJobSpecChecksum,
		requeue.AnnotationOrigin, requeue.AnnotationRequeueOf, requeue.AnnotationCommitted} {
		set(a.pod, "forged", "metadata", "annotations", annotation)
	}
	set(a.pod, "v1:a:00", "metadata", "annotations", requeue.AnnotationSignature)
	set(a.pod, "forged", "metadata", "labels", requeue.LabelTracked)
	if _, revoked, _ := unstructured.NestedFieldNoCopy(a.pod.Object, "metadata", "labels", requeue.LabelHold); !revoked {
		set(a.pod, requeue.HoldValue, "metadata", "labels", requeue.LabelHold)
	}
	set(a.pod, []any{requeue.Finalizer}, "metadata", "finalizers")
	set(a.pod, []any{map[string]any{"name": requeue.SchedulingGate}}, "spec", "schedulingGates")
}

func label(name string, value any) func(*admission) {
	return func(a *admission) { set(a.pod, value, "metadata", "labels", name) }
}

func annotate(name string, value any) func(*admission) {
	return func(a *admission) { set(a.pod, value, "metadata", "annotations", name) }
}

func without(path ...string) func(*admission) {
	return func(a *admission) { unstructured.RemoveNestedField(a.pod.Object, path...) }
}

func set(pod *unstructured.Unstructured, value any, path ...string) {
	if err := unstructured.SetNestedField(pod.Object, value, path...); err != nil {
		panic(err) // a test that asks for the impossible
	}
}

func decode(tb testing.TB, raw []byte) *unstructured.Unstructured {
	tb.Helper()
	pod := &unstructured.Unstructured{}
	require.NoError(tb, utiljson.Unmarshal(raw, &pod.Object))
	return pod
}

// typed is the pod as the API server stores it.
func typed(tb testing.TB, pod *unstructured.Unstructured) *corev1.Pod {
	tb.Helper()
	raw, err := json.Marshal(pod.Object)
	require.NoError(tb, err)
	var p corev1.Pod
	require.NoError(tb, json.Unmarshal(raw, &p))
	return &p
}
