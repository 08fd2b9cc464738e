package executor

import (
	"encoding/json"
	"maps"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// goldenEvent is an event of testdata/events.json.
type goldenEvent struct {
	Case     string            `json:"case"`
	Type     watch.EventType   `json:"type"`
	Labels   map[string]string `json:"labels"`
	Deleting bool              `json:"deleting"`
	Status   corev1.PodStatus  `json:"status"`
}

// goldenFailure is Python's FailureDetails.
type goldenFailure struct {
	PodReason        string `json:"pod_reason"`
	PodMessage       string `json:"pod_message"`
	ContainerType    string `json:"container_type"`
	ContainerName    string `json:"container_name"`
	ContainerState   string `json:"container_state"`
	ContainerReason  string `json:"container_reason"`
	ContainerMessage string `json:"container_message"`
	ExitCode         int32  `json:"exit_code"`
}

// goldenSeen is what the real process_status put in its queue; nil where it put nothing.
type goldenSeen struct {
	State   *State         `json:"state"` // null is a success
	Failure *goldenFailure `json:"failure"`
}

func (g *goldenSeen) UnmarshalJSON(content []byte) error {
	if string(content) == `"nothing"` {
		*g = goldenSeen{State: new(State)}
		return nil
	}
	type plain goldenSeen
	return json.Unmarshal(content, (*plain)(g))
}

func TestProcessStatus(t *testing.T) {
	var events []goldenEvent
	read(t, "events.json", &events)
	for release, provider := range map[Airflow]string{Airflow3: "10.25.0", Airflow2: "10.1.0"} {
		golden := map[string]goldenSeen{}
		read(t, "seen-"+provider+".json", &golden)
		require.Len(t, golden, len(events))
		for _, event := range events {
			t.Run("provider "+provider+" on "+event.Case, func(t *testing.T) {
				seen, ok := Rules{Airflow: release}.ProcessStatus(event.event())
				want, known := golden[event.Case]
				require.True(t, known, "nothing golden of that name")
				assert.Equal(t, want.seen(event), seen)
				assert.Equal(t, want.seen(event) != Seen{}, ok)
			})
		}
	}
}

func TestProcessStatusWithoutTheHold(t *testing.T) {
	failed := goldenEvent{Type: watch.Modified, Status: corev1.PodStatus{Phase: corev1.PodFailed}}
	for _, tt := range []struct {
		name   string
		labels map[string]string
		want   State
	}{
		{"a held pod that failed is seen as without us", map[string]string{requeue.LabelHold: requeue.HoldValue}, Failed},
		{"a pod that Airflow revoked is not", map[string]string{requeue.LabelHold: "True"}, ""},
		{"a pod without a hold is seen as ever", nil, Failed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			failed.Labels = tt.labels
			seen, ok := ProcessStatus(failed.event(), true)
			assert.Equal(t, tt.want, seen.State)
			assert.Equal(t, tt.want != "", ok)
		})
	}
	t.Run("with the hold respected it is not seen", func(t *testing.T) {
		failed.Labels = map[string]string{requeue.LabelHold: requeue.HoldValue}
		_, ok := ProcessStatus(failed.event(), false)
		assert.False(t, ok)
	})
}

func TestFatalReasonsAreConfigurable(t *testing.T) {
	waits := goldenEvent{Type: watch.Modified, Status: corev1.PodStatus{
		Phase: corev1.PodPending,
		ContainerStatuses: []corev1.ContainerStatus{{State: corev1.ContainerState{
			Waiting: &corev1.ContainerStateWaiting{Reason: "ErrImagePull"},
		}}},
	}}
	for _, tt := range []struct {
		name    string
		reasons []string
		want    bool
	}{
		{"the default knows ErrImagePull", nil, true},
		{"an empty list has no fatal reason", []string{}, false},
		{"a list of others does not know it", []string{"InvalidImageName"}, false},
		{"a list of its own knows it", []string{"ErrImagePull"}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, ok := Rules{FatalReasons: tt.reasons}.ProcessStatus(waits.event())
			assert.Equal(t, tt.want, ok)
		})
	}
}

func TestIdentify(t *testing.T) {
	whole := map[string]string{"dag_id": "etl", "task_id": "load", "run_id": "run", "try_number": "2", "map_index": "3"}
	without := func(key string) map[string]string {
		rest := maps.Clone(whole)
		delete(rest, key)
		return rest
	}
	with := func(key, value string) map[string]string {
		rest := maps.Clone(whole)
		rest[key] = value
		return rest
	}
	for _, tt := range []struct {
		name        string
		annotations map[string]string
		want        requeue.Key
		fails       string
	}{
		{"a mapped task", whole, requeue.Key{DagID: "etl", TaskID: "load", RunID: "run", MapIndex: 3}, ""},
		{"a task that is not mapped", without("map_index"), requeue.Key{DagID: "etl", TaskID: "load", RunID: "run", MapIndex: -1}, ""},
		{"no dag_id", without("dag_id"), requeue.Key{}, "reading the task of pod airflow/etl: no annotation dag_id"},
		{"no task_id", without("task_id"), requeue.Key{}, "reading the task of pod airflow/etl: no annotation task_id"},
		{"no try_number", without("try_number"), requeue.Key{}, "reading the try number of pod airflow/etl"},
		{"a try number that is none", with("try_number", "x"), requeue.Key{}, "reading the try number of pod airflow/etl"},
		{"a map index that is none", with("map_index", "x"), requeue.Key{}, "reading the map index of pod airflow/etl"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			key, try, err := Identify(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{
				Namespace: "airflow", Name: "etl", Annotations: tt.annotations,
			}})
			if tt.fails != "" {
				require.ErrorContains(t, err, tt.fails)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, tt.want, key)
			assert.Equal(t, 2, try)
		})
	}
}

// event is the event that testdata/make_seen.py gives to Python.
func (g goldenEvent) event() watch.Event {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "airflow", Name: "etl-load-k3v9x0a7", ResourceVersion: "7",
			Labels:      map[string]string{"airflow-worker": "17"},
			Annotations: map[string]string{"dag_id": "etl", "task_id": "load", "run_id": "run", "try_number": "2"},
		},
		Status: g.Status,
	}
	maps.Copy(pod.Labels, g.Labels)
	if g.Deleting {
		pod.DeletionTimestamp = &metav1.Time{Time: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	}
	return watch.Event{Type: g.Type, Object: pod}
}

func (g goldenSeen) seen(event goldenEvent) Seen {
	if g.State != nil && *g.State == "" {
		return Seen{}
	}
	seen := Seen{
		Pod:       types.NamespacedName{Namespace: "airflow", Name: "etl-load-k3v9x0a7"},
		Key:       requeue.Key{DagID: "etl", TaskID: "load", RunID: "run", MapIndex: -1},
		TryNumber: 2, State: Succeeded, Event: event.Type, ResourceVersion: "7",
	}
	if g.State != nil {
		seen.State = *g.State
	}
	if g.Failure != nil {
		failure := Failure(*g.Failure)
		seen.Failure = &failure
	}
	return seen
}

func TestSeenIsOneLine(t *testing.T) {
	event := goldenEvent{Type: watch.Modified, Status: corev1.PodStatus{Phase: corev1.PodFailed}}
	seen, ok := ProcessStatus(event.event(), false)
	require.True(t, ok)
	assert.Equal(t, "MODIFIED airflow/etl-load-k3v9x0a7: etl.load run (try 2) failed at 7", seen.String())
}
