package requeue

import (
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// airflowPods are the JSON of pods that the real KubernetesExecutor made, by case.
func airflowPods(tb testing.TB, version string) map[string]json.RawMessage {
	tb.Helper()
	pods := map[string]json.RawMessage{}
	readTestdata(tb, "pods-"+version+".json", &pods)
	return pods
}

// airflowTask is what Airflow made a pod of.
type airflowTask struct {
	Case        string
	ID          string
	DagID       string `json:"dag_id"`
	TaskID      string `json:"task_id"`
	RunID       string `json:"run_id"`
	MapIndex    int    `json:"map_index"`
	TryNumber   int    `json:"try_number"`
	QueuedAt    string `json:"queued_at"`
	Annotations map[string]string
}

func readTestdata(tb testing.TB, name string, into any) {
	tb.Helper()
	raw, err := os.ReadFile(filepath.Join("..", "..", "internal", "executor", "testdata", name))
	require.NoError(tb, err)
	require.NoError(tb, json.Unmarshal(raw, into))
}

func TestParseJobReadsWhatAirflowSubmits(t *testing.T) {
	var tasks []airflowTask
	readTestdata(t, "tasks.json", &tasks)
	require.NotEmpty(t, tasks)
	for _, version := range []string{"2.10.5", "3.3.2"} {
		pods := airflowPods(t, version)
		for _, task := range tasks {
			t.Run(version+" "+task.Case, func(t *testing.T) {
				want := Job{Ref: Ref{Key: Key{DagID: task.DagID, TaskID: task.TaskID, RunID: task.RunID, MapIndex: task.MapIndex}},
					TryNumber: task.TryNumber, Tuning: task.Annotations}
				if version == "3.3.2" {
					queued, err := time.Parse(time.RFC3339Nano, task.QueuedAt)
					require.NoError(t, err)
					want.Ref.ID = task.ID
					want.IssuedAt = queued.Truncate(time.Second).UTC() // made right after the queueing, by a clock of whole seconds
					want.Expires = want.IssuedAt.Add(10 * time.Minute)
				}
				got, err := ParseJob(pods[task.Case])
				require.NoError(t, err)
				require.Equal(t, want, got)
			})
		}
	}
}

// workloadPod is a pod of Airflow 3 with these annotations and this argument after --json-string.
func workloadPod(annotations map[string]string, workload string) []byte {
	return podJSON(annotations, map[string]any{"name": "base", "args": []string{"python", "-m", "x", "--json-string", workload}})
}

func podJSON(annotations map[string]string, containers ...map[string]any) []byte {
	raw, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": annotations}, "spec": map[string]any{"containers": containers}})
	if err != nil {
		panic(err)
	}
	return raw
}

func named(more ...string) map[string]string {
	a := map[string]string{"dag_id": "etl", "task_id": "load", "run_id": "manual__1", "try_number": "1"}
	for i := 0; i+1 < len(more); i += 2 {
		a[more[i]] = more[i+1]
	}
	return a
}

func token(claims string) string {
	return "e30." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".c2ln"
}

func TestParseJobBelievesOnlyWhatItUnderstands(t *testing.T) {
	plain := Job{Ref: Ref{Key: Key{DagID: "etl", TaskID: "load", RunID: "manual__1", MapIndex: -1}}, TryNumber: 1, Tuning: map[string]string{}}
	with := func(change func(*Job)) Job {
		j := plain
		change(&j)
		return j
	}
	ti := func(token string) string { return `{"token":"` + token + `","ti":{"id":"` + taskID + `"}}` }
	named3 := with(func(j *Job) { j.Ref.ID = taskID })
	for _, c := range []struct {
		name string
		pod  []byte
		want Job
	}{
		{"a pod without containers", podJSON(named()), plain},
		{"the base container is not the first", podJSON(named(), map[string]any{"name": "proxy", "args": []string{"--json-string", `{"ti":{"id":"forged"}}`}},
			map[string]any{"name": "base", "args": []string{"--json-string", ti("")}}), named3},
		{"another container's arguments name nothing", podJSON(named(), map[string]any{"name": "proxy", "args": []string{"--json-string", ti("")}}), plain},
		{"arguments end where the workload should be", podJSON(named(), map[string]any{"name": "base", "args": []string{"--json-string"}}), plain},
		{"a workload that is no JSON", workloadPod(named(), "{"), plain},
		{"a workload of another shape", workloadPod(named(), `{"ti":[]}`), plain},
		{"a workload without a task instance", workloadPod(named(), `{}`), plain},
		{"an id in upper case is the same id", workloadPod(named(), `{"ti":{"id":"`+strings.ToUpper(taskID)+`"}}`), named3},
		{"a mapped task", workloadPod(named("map_index", "7"), ti("")), with(func(j *Job) { j.Ref.ID, j.Ref.MapIndex = taskID, 7 })},
		{"a map index of -1 is none", workloadPod(named("map_index", "-1"), ti("")), named3},
		{"Airflow 3.4 says that the row is read by id", workloadPod(named("task_instance_id", otherID), ti("")),
			with(func(j *Job) { j.Ref.ID, j.Ref.ByID = taskID, true })},
		{"Airflow 3.4's annotation is not trusted to name the id where the arguments don't",
			workloadPod(named("task_instance_id", strings.ToUpper(otherID)), "{"), with(func(j *Job) { j.Ref.ID = "" })},
		{"an annotation that is empty says nothing", workloadPod(named("task_instance_id", ""), ti("")), named3},
		{"a token's times", workloadPod(named(), ti(token(`{"iat":1767225605,"exp":1767226205}`))), with(func(j *Job) {
			j.Ref.ID, j.IssuedAt, j.Expires = taskID, time.Unix(1767225605, 0).UTC(), time.Unix(1767226205, 0).UTC()
		})},
		{"a token with padding is no token", workloadPod(named(), ti("e30.e30=.c2ln")), named3},
		{"a token of two parts is no token", workloadPod(named(), ti("e30.e30")), named3},
		{"a token of four parts is no token", workloadPod(named(), ti("e30.e30.e30.e30")), named3},
		{"a token that is no base64", workloadPod(named(), ti("e30.!.c2ln")), named3},
		{"a token whose claims are no JSON", workloadPod(named(), ti(token("{"))), named3},
		{"a token whose claims are a list", workloadPod(named(), ti(token("[]"))), named3},
		{"a token without times", workloadPod(named(), ti(token("{}"))), named3},
		{"a token whose times are words", workloadPod(named(), ti(token(`{"iat":"now","exp":"soon"}`))), named3},
		{"a token whose times are before all", workloadPod(named(), ti(token(`{"iat":-1,"exp":0}`))), named3},
		{"a token whose times are no integers", workloadPod(named(), ti(token(`{"iat":1e30}`))), named3},
		{"no tuning but ours", podJSON(named(AnnotationMaxRetries, "3", "airflow-requeue.dev/max-tries", "9", AnnotationAttempt, "7")),
			with(func(j *Job) { j.Tuning = map[string]string{AnnotationMaxRetries: "3"} })},
		{"letters of any alphabet", podJSON(named("dag_id", "задача", "task_id", "計算", "run_id", `manual <"&">`)), with(func(j *Job) {
			j.Ref.Key = Key{DagID: "задача", TaskID: "計算", RunID: `manual <"&">`, MapIndex: -1}
		})},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := ParseJob(c.pod)
			require.NoError(t, err)
			require.Equal(t, c.want, got)
		})
	}
}

func TestParseJobRefusesAPodThatNamesNoTaskInstance(t *testing.T) {
	without := func(name string) map[string]string {
		a := named()
		delete(a, name)
		return a
	}
	for _, c := range []struct {
		name string
		pod  []byte
		want string
	}{
		{"nothing at all", nil, "parsing the job spec: not the JSON of a pod"},
		{"no JSON", []byte("apiVersion: v1"), "parsing the job spec: not the JSON of a pod"},
		{"JSON of something else", []byte(`[]`), "parsing the job spec: not the JSON of a pod"},
		{"annotations that are no words", []byte(`{"metadata":{"annotations":{"dag_id":1}}}`), "parsing the job spec: not the JSON of a pod"},
		{"no annotations", []byte(`{}`), "reading the task instance: annotation dag_id is missing"},
		{"no dag", podJSON(without("dag_id")), "reading the task instance: annotation dag_id is missing"},
		{"no task", podJSON(without("task_id")), "reading the task instance: annotation task_id is missing"},
		{"no run", podJSON(without("run_id")), "reading the task instance: annotation run_id is missing"},
		{"no try", podJSON(without("try_number")), "reading the task instance: annotation try_number is missing"},
		{"a try that is empty", podJSON(named("try_number", "")), "reading the task instance: annotation try_number is missing"},
		{"a try that is no number", podJSON(named("try_number", "secret")), "reading the task instance: annotation try_number is not a whole number"},
		{"a map index that is no number", podJSON(named("map_index", "None")), "reading the task instance: annotation map_index is not a whole number"},
		{"a map index that is empty", podJSON(named("map_index", "")), "reading the task instance: annotation map_index is not a whole number"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := ParseJob(c.pod)
			require.EqualError(t, err, c.want, "it quotes nothing of the pod")
			require.Zero(t, got)
		})
	}
}

// The end of time is far off for a duration too: 292 years.
func TestATokenThatNeverExpiresIsNotTooLate(t *testing.T) {
	endOfTime := time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
	d := given(rejected, job(func(j *Job) { j.Expires = endOfTime })).decide()
	require.Equal(t, detach("31", ReasonKubeletRejected, inWords), d)
}

func FuzzParseJob(f *testing.F) {
	for _, version := range []string{"2.10.5", "3.3.2"} {
		for _, pod := range airflowPods(f, version) {
			f.Add([]byte(pod))
		}
	}
	f.Add(workloadPod(named("map_index", "3", "task_instance_id", otherID), `{"token":"`+token(`{"iat":1,"exp":9223372036854775807}`)+`"}`))
	f.Add([]byte(`{"metadata":{"annotations":null},"spec":{"containers":[null]}}`))
	f.Fuzz(func(t *testing.T, pod []byte) {
		j, err := ParseJob(pod)
		if err != nil {
			require.Zero(t, j)
			return
		}
		require.NotEmpty(t, j.Ref.DagID)
		require.Equal(t, strings.ToLower(j.Ref.ID), j.Ref.ID)
		for name := range j.Tuning {
			require.Contains(t, tuningAnnotations(), name)
		}
		s := given(rejected)
		s.Seal.Job = j
		s.decide()
	})
}
