package executor

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// goldenTask is a task of testdata/tasks.json.
type goldenTask struct {
	Case         string            `json:"case"`
	ID           string            `json:"id"`
	DagVersionID string            `json:"dag_version_id"`
	DagID        string            `json:"dag_id"`
	TaskID       string            `json:"task_id"`
	RunID        string            `json:"run_id"`
	MapIndex     int               `json:"map_index"`
	TryNumber    int               `json:"try_number"`
	JobID        int64             `json:"job_id"`
	QueuedAt     time.Time         `json:"queued_at"`
	TokenID      string            `json:"token_id"`
	Suffix       string            `json:"suffix"`
	Namespace    string            `json:"namespace"`
	Image        string            `json:"image"`
	Annotations  map[string]string `json:"annotations"`
	Named        bool              `json:"named"` // the pod's name is the caller's, not made of the IDs
}

func TestPod(t *testing.T) {
	var tasks []goldenTask
	read(t, "tasks.json", &tasks)
	for _, release := range []Airflow{Airflow3, Airflow2} {
		golden := map[string]corev1.Pod{}
		read(t, "pods-"+string(release)+".json", &golden)
		require.Len(t, golden, len(tasks))
		for _, tt := range tasks {
			t.Run("Airflow "+string(release)+" makes the same pod of "+tt.Case, func(t *testing.T) {
				want, ok := golden[tt.Case]
				require.True(t, ok, "no golden pod of that name")
				want.TypeMeta = metav1.TypeMeta{}
				task := Task{
					Key:     requeue.Key{DagID: tt.DagID, TaskID: tt.TaskID, RunID: tt.RunID, MapIndex: tt.MapIndex},
					Airflow: release, ID: tt.ID, DagVersionID: tt.DagVersionID, TryNumber: tt.TryNumber,
					JobID: tt.JobID, QueuedAt: tt.QueuedAt, TokenID: tt.TokenID, Suffix: tt.Suffix,
					Namespace: tt.Namespace, Image: tt.Image, Annotations: tt.Annotations,
				}
				if tt.Named {
					task.Name = want.Name
				}
				assert.Equal(t, &want, Pod(task))
			})
		}
	}
}

func TestPodIsWhatItsTaskSays(t *testing.T) {
	queued := time.Date(2026, 1, 1, 0, 0, 5, 999, time.UTC)
	task := NewTask("etl", "load", "run", queued)

	t.Run("one task makes the same pod twice", func(t *testing.T) {
		first := Pod(task)
		assert.Equal(t, first, Pod(task))
	})
	t.Run("a pod names the task, the try and the row's ID", func(t *testing.T) {
		pod := Pod(task)
		key, try, err := Identify(pod)
		require.NoError(t, err)
		assert.Equal(t, task.Key, key)
		assert.Equal(t, 1, try)
		assert.Equal(t, task.ID, instanceID(pod))
	})
	t.Run("another queueing of the same try has another pod and token, and the same identity", func(t *testing.T) {
		again := task.Again(queued.Add(time.Hour))
		assert.NotEqual(t, Pod(task).Name, Pod(again).Name)
		assert.NotEqual(t, task.token(), again.token())
		want := task.Row()
		want.QueuedAt = queued.Add(time.Hour)
		assert.Equal(t, want, again.Row())
	})
	t.Run("the next try has another ID", func(t *testing.T) {
		next := task.NextTry(queued)
		assert.Equal(t, 2, next.TryNumber)
		assert.NotEqual(t, task.ID, next.ID)
	})
	t.Run("Airflow 2 has no ID, neither in the row nor in the pod", func(t *testing.T) {
		task := task
		task.Airflow = Airflow2
		assert.Empty(t, task.Row().ID)
		assert.Empty(t, instanceID(Pod(task)))
	})
	t.Run("Airflow 3.4 writes the ID on the pod", func(t *testing.T) {
		task := task
		task.ByID = true
		pod := Pod(task)
		assert.Equal(t, task.ID, pod.Annotations["task_instance_id"])
		assert.Equal(t, task.ID, pod.Labels["ti_id"])
	})
	t.Run("a mutation hook sees the finished pod", func(t *testing.T) {
		task := task
		task.Mutate = func(pod *corev1.Pod) { pod.Spec.NodeName = pod.Labels["dag_id"] }
		assert.Equal(t, "etl", Pod(task).Spec.NodeName)
	})
	t.Run("a name ends in eight random characters", func(t *testing.T) {
		assert.Regexp(t, `^etl-load-[a-z0-9]{8}$`, Pod(task).Name)
	})
	t.Run("nothing is escaped for HTML in the workload", func(t *testing.T) {
		task := task
		task.RunID = "a<b>&c"
		assert.Contains(t, Pod(task).Spec.Containers[0].Args[4], `"run_id":"a<b>&c"`)
	})
}

func read(t *testing.T, name string, into any) {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("testdata", name))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(content, into))
}
