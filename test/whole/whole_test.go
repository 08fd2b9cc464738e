package whole_test

import (
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/airflow-requeue/airflow-requeue/internal/airflow"
)

const tasks = 30

// tally is what came of a run.
type tally struct {
	Run       string
	Succeeded int
	Failed    int
	Tries     int // the highest try number of all tasks
	Burnt     int // tries that failed though no container of them ever ran
	Alerts    int
	Died      int // pods, while their task was queued
	Pods      int // that came to a kubelet
	Replaced  int // tasks that ran in a replacement, by what their rows say
}

// times are how long it took: not for a test to compare.
type times struct {
	run       float64         // of the DAG, in seconds, as Airflow has it
	recovered []time.Duration // from a pod's death to its task's container, sorted
}

func TestTheWholeAirflowOnce(t *testing.T) {
	if !*whole {
		t.Skip("it installs Airflow from PyPI: make demo-airflow, or give -whole")
	}
	// Airflow's processes have processes of their own: they are stopped whatever comes.
	ctx, stop := signal.NotifyContext(t.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	environment, err := airflow.Install(ctx, os.Stderr, airflow.Newest())
	require.NoError(t, err)
	fmt.Fprintf(os.Stdout, "Airflow %s, its own requeue off (pod_launch_failure_retries=0): %d tasks, retries=0; the pods of %d die before they start\n",
		environment.Version, tasks, storm)
	metadata := environment.Metadata(t)
	got, took := map[string]tally{}, map[string]times{}
	for _, half := range []struct {
		name      string
		installed bool
		want      tally
	}{
		{"with", true, tally{Run: "success", Succeeded: tasks, Tries: 1, Died: storm, Pods: tasks + storm, Replaced: storm}},
		{"without", false, tally{Run: "failed", Succeeded: tasks - storm, Failed: storm, Tries: 1, Burnt: storm, Alerts: storm, Died: storm, Pods: tasks}},
	} {
		t.Run(half.name, func(t *testing.T) {
			h := newHalf(t, half.name, environment, metadata, ctx.Done())
			if half.installed {
				h.install()
			}
			got[half.name] = h.play()
			took[half.name] = h.times()
			assert.GreaterOrEqual(t, got[half.name].Died, 10, "pods that died while their task was queued")
			assert.Equal(t, half.want, got[half.name])
		})
		require.NoError(t, ctx.Err(), "interrupted")
	}
	require.Len(t, got, 2, "halves that came to their end")
	require.NoError(t, table(got, took))
}

// count counts what came of a run, but for the alerts, which come late.
func (h *half) count(run string, states map[string]string) tally {
	h.T.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	t := tally{Run: run}
	require.NoError(h.T, h.database.Admin.QueryRowContext(h.T.Context(),
		"SELECT max(try_number), count(*) FILTER (WHERE hostname LIKE '%-r1') FROM task_instance").Scan(&t.Tries, &t.Replaced))
	for task, state := range states {
		fortune := h.of(task)
		t.Pods += fortune.pods
		if !fortune.died.IsZero() {
			t.Died++
		}
		switch state {
		case "success":
			t.Succeeded++
		case "failed":
			t.Failed++
			if fortune.started.IsZero() {
				t.Burnt++
			}
		}
	}
	return t
}

func (h *half) times() times {
	h.T.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	var took times
	require.NoError(h.T, h.database.Admin.QueryRowContext(h.T.Context(),
		"SELECT extract(epoch FROM end_date - start_date)::float FROM dag_run").Scan(&took.run))
	for _, fortune := range h.fortunes {
		if !fortune.died.IsZero() && !fortune.started.IsZero() {
			took.recovered = append(took.recovered, fortune.started.Sub(fortune.died))
		}
	}
	slices.Sort(took.recovered)
	return took
}

// lost is what the deaths cost the tasks that got over them.
func (t times) lost() string {
	if len(t.recovered) == 0 {
		return "all of its work"
	}
	return fmt.Sprintf("median %.1f, longest %.1f", t.recovered[len(t.recovered)/2].Seconds(), t.recovered[len(t.recovered)-1].Seconds())
}

// table shows both halves.
func table(got map[string]tally, took map[string]times) error {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 3, ' ', 0)
	line := func(what string, of func(half string) any) {
		fmt.Fprintln(w, strings.Join([]string{what, fmt.Sprint(of("with")), fmt.Sprint(of("without"))}, "\t"))
	}
	fmt.Fprintln(w, "\n\twith airflow-requeue\twithout")
	line("the DAG's run", func(half string) any { return got[half].Run })
	line("tasks succeeded", func(half string) any { return got[half].Succeeded })
	line("tasks failed", func(half string) any { return got[half].Failed })
	line("pods that died while their task was queued", func(half string) any { return got[half].Died })
	line("tasks that ran in a replacement", func(half string) any { return got[half].Replaced })
	line("highest try number", func(half string) any { return got[half].Tries })
	line("tries burnt by tasks that never ran", func(half string) any { return got[half].Burnt })
	line("alerts fired", func(half string) any { return got[half].Alerts })
	line("seconds lost by such a task", func(half string) any { return took[half].lost() })
	line("seconds that the run took", func(half string) any { return fmt.Sprintf("%.0f", took[half].run) })
	return w.Flush()
}
