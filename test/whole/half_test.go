package whole_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/airflow-requeue/airflow-requeue/internal/airflow"
	"github.com/airflow-requeue/airflow-requeue/internal/history"
	"github.com/airflow-requeue/airflow-requeue/internal/kubelet"
	"github.com/airflow-requeue/airflow-requeue/internal/programs"
	"github.com/airflow-requeue/airflow-requeue/internal/world"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// half is one of the two runs: an Airflow with a namespace and a database of its own.
type half struct {
	*programs.Site
	name        string
	environment airflow.Environment
	database    airflow.Database
	dir         string
	api         string // the address of Airflow's API server
	scheduler   *programs.Process
	components  []*programs.Process // of Airflow, the scheduler among them
	record      *history.Record
	began       time.Time
	logs        map[string]*programs.Log // by component
	interrupted <-chan struct{}

	mu       sync.Mutex
	pods     map[string]*programs.Log // by name
	fortunes map[string]*fortune      // by task
}

func newHalf(t *testing.T, name string, environment airflow.Environment, metadata *airflow.Metadata, interrupted <-chan struct{}) *half {
	t.Helper()
	w := world.Bare(t, shared.Servers.Config())
	database := metadata.Create(t, "airflow_"+name)
	h := &half{name: name, interrupted: interrupted, environment: environment, database: database, dir: t.TempDir(),
		api: programs.FreeAddress(t), record: history.Watch(t, w.Client, w.Namespace), began: time.Now(),
		logs: map[string]*programs.Log{}, pods: map[string]*programs.Log{}, fortunes: map[string]*fortune{},
		Site: &programs.Site{World: w, Servers: shared.Servers, DatabaseURL: database.WatcherURL}}
	for _, folder := range []string{"dags", "worker"} { // copies: Python writes what it compiles beside them
		require.NoError(t, os.CopyFS(filepath.Join(h.dir, folder), os.DirFS(folder)))
	}
	t.Cleanup(func() {
		select {
		case <-interrupted:
		default:
			if t.Failed() {
				h.tell()
			}
		}
	})
	return h
}

// install installs airflow-requeue; from its return on pods are held.
func (h *half) install() {
	h.T.Helper()
	said := &programs.Log{}
	h.logs["webhook and watcher"] = said
	h.Install(shared.Built, said, h.Access(h.WatcherUser()))
	h.say("airflow-requeue holds Airflow's pods from now on")
}

// play runs the DAG to its end, and returns what came of it.
func (h *half) play() tally {
	h.T.Helper()
	h.RunKubelets(kubelet.Options{Namespace: h.Namespace, Script: h.script, Failed: func(err error) { assert.NoError(h.T, err) }})
	h.startAirflow()
	states := map[string]string{}
	var run string
	h.until("the DAG's run ends", func() bool {
		require.False(h.T, h.scheduler.HasEnded(), "Airflow's scheduler has ended")
		h.tellChanges(states)
		err := h.database.Admin.QueryRowContext(h.T.Context(), "SELECT state FROM dag_run").Scan(&run)
		return err == nil && (run == "success" || run == "failed")
	})
	h.tellChanges(states)
	h.say("the DAG's run: %s", run)
	h.until("no pod is held any more", func() bool {
		return !slices.ContainsFunc(slices.Collect(maps.Values(h.Pods())), func(pod *corev1.Pod) bool {
			return requeue.Tracked(pod) || len(pod.Finalizers) > 0
		})
	})
	got := h.count(run, states)
	h.until("each failure has raised its alert", func() bool {
		got.Alerts = strings.Count(h.read(h.alerts()), "\n")
		return got.Alerts >= got.Failed
	})
	assert.Empty(h.T, h.record.AllBroken(), "promises that were broken on the way")
	return got
}

// tellChanges shows what has become of tasks since the last time.
func (h *half) tellChanges(states map[string]string) {
	h.T.Helper()
	rows, err := h.database.Admin.QueryContext(h.T.Context(),
		"SELECT task_id, coalesce(state, 'none'), try_number FROM task_instance ORDER BY task_id")
	require.NoError(h.T, err)
	defer rows.Close()
	for rows.Next() {
		var task, state string
		var try int
		require.NoError(h.T, rows.Scan(&task, &state, &try))
		if states[task] != state && (state == "success" || state == "failed") {
			h.say("%s  %s, try %d", task, state, try)
		}
		states[task] = state
	}
	require.NoError(h.T, rows.Err())
}

// until waits for what must come. It does so no longer when something has come otherwise already.
func (h *half) until(what string, cond func() bool) {
	h.T.Helper()
	for deadline := time.Now().Add(patience); !cond(); {
		if time.Now().After(deadline) || h.T.Failed() {
			require.FailNow(h.T, "it never came: "+what)
		}
		select {
		case <-h.interrupted:
			require.FailNow(h.T, "interrupted")
		case <-time.After(pace):
		}
	}
}

// say shows a line of progress.
func (h *half) say(format string, args ...any) {
	fmt.Fprintf(os.Stdout, "%6.1fs  %-7s  %s\n", time.Since(h.began).Seconds(), h.name, fmt.Sprintf(format, args...))
}

func (h *half) alerts() string { return filepath.Join(h.dir, "alerts") }

// read reads a file that may not be there yet.
func (h *half) read(path string) string {
	content, err := os.ReadFile(path)
	if !os.IsNotExist(err) {
		require.NoError(h.T, err)
	}
	return string(content)
}

// log is what a pod's container says.
func (h *half) log(pod string) *programs.Log {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.pods[pod] == nil {
		h.pods[pod] = &programs.Log{}
	}
	return h.pods[pod]
}

// tell shows what is known of a half that failed: the end of what each process said.
func (h *half) tell() {
	const most = 6000
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, logs := range []map[string]*programs.Log{h.logs, h.pods} {
		for _, name := range slices.Sorted(maps.Keys(logs)) {
			said := logs[name].String()
			h.T.Logf("%s:\n%s", name, said[max(0, len(said)-most):])
		}
	}
}
