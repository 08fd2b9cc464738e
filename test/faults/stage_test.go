package faults

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/airflow-requeue/airflow-requeue/internal/executor"
	"github.com/airflow-requeue/airflow-requeue/internal/faultproxy"
	"github.com/airflow-requeue/airflow-requeue/internal/history"
	"github.com/airflow-requeue/airflow-requeue/internal/programs"
	"github.com/airflow-requeue/airflow-requeue/internal/world"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

const ddl = "../../pkg/tidb/testdata/3.3.2-sqlite.sql"

// rows is Airflow's side of the metadata database.
type rows interface {
	Insert(ctx context.Context, row requeue.TaskInstance) error
	Update(ctx context.Context, row requeue.TaskInstance) error
}

// stage is a Site with a record of all that happens to its pods, and a proxy for its watchers.
type stage struct {
	*programs.Site
	record *history.Record
	proxy  *faultproxy.Proxy
	rows   rows
	log    programs.Log // of the watchers
}

func newStage(t *testing.T) *stage {
	t.Helper()
	config := shared.Servers.Config()
	config.ContentType = "application/vnd.kubernetes.protobuf" // hundreds of pods at once: JSON is what takes the time
	config.AcceptContentTypes = config.ContentType + ",application/json"
	w := world.New(t, config, ddl)
	return &stage{Site: programs.NewSite(w, shared.Servers), record: history.Watch(t, w.Client, w.Namespace), proxy: faultproxy.New(t, shared.Servers.Config()), rows: w.DB}
}

// play is one pod's way to its outcome on a stage. Its chain of pods has its name.
type play struct {
	*stage
	t    *testing.T
	name string
	task executor.Task
	pod  *corev1.Pod // as it was submitted
}

// play submits a pod, drives it to its outcome and waits until the watcher is done with it.
func (s *stage) play(t *testing.T, name string, o outcome, plan faultproxy.Plan) *play {
	t.Helper()
	p := &play{stage: s, t: t, name: name}
	p.task = executor.NewTask("dag", name, "manual__1", time.Now().UTC().Truncate(time.Microsecond))
	p.task.Name, p.task.Annotations = name, o.tuning
	if o.change != nil {
		o.change(&p.task)
	}
	s.proxy.Plan(name, p.overtaking(o, plan))
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s\nrequests: %s\n%s", s.record.History(name), strings.Join(s.proxy.Requests(name), ", "), s.log.About(name, "lead"))
		}
	})
	require.NoError(t, s.rows.Insert(t.Context(), p.task.Row()))
	p.submit()
	p.until(name, "submitted", func(pod *corev1.Pod) bool { return pod != nil })
	o.play(p)
	p.wait("the watcher is done", func() bool { return p.isOver(o) })
	return p
}

// isOver reports whether a watcher has nothing more to do with the chain: it tracks no pod, but for a replacement that the
// outcome leaves when it may run.
func (p *play) isOver(o outcome) bool {
	return !slices.ContainsFunc(p.record.Pods(p.name), func(pod *corev1.Pod) bool {
		lives := o.replacementLives && pod.Name == p.name+"-r1" && !requeue.Gated(pod)
		return requeue.Tracked(pod) && !lives
	})
}

// submit creates the task's pod as the executor makes it and the webhook stamps it. World.Submit would end the test of
// the whole stage where it fails.
func (p *play) submit() {
	p.t.Helper()
	stamped, err := world.Stamped(p.Sealer, world.Installation, p.Namespace, p.task)
	require.NoError(p.t, err)
	p.pod, err = p.Client.CoreV1().Pods(p.Namespace).Create(p.t.Context(), stamped, metav1.CreateOptions{})
	require.NoError(p.t, err)
}

// overtaking adds to a plan what an outcome wants to happen before the first replacement is committed.
func (p *play) overtaking(o outcome, plan faultproxy.Plan) faultproxy.Plan {
	done := false
	return func(r faultproxy.Request) faultproxy.Fault {
		if o.overtake != nil && r.What == "PATCH -r1" && !done {
			done = true // a watcher makes the requests of one chain one after the other
			o.overtake(p)
		}
		if plan == nil {
			return nil
		}
		return plan(r)
	}
}

// wait waits for something to be so of the play's chain.
func (p *play) wait(what string, cond func() bool) {
	p.t.Helper()
	deadline := time.After(world.Patience)
	for {
		changed := p.record.Changed(p.name)
		if cond() {
			return
		}
		select {
		case <-changed:
		case <-time.After(200 * time.Millisecond): // what the executor saw changes no pod
		case <-deadline:
			require.FailNow(p.t, "it never came: "+what, "the end so far:\n%s", p.end())
		}
	}
}

// until waits for a pod of the chain to be as wanted, and returns it; nil stands for a pod that is not there.
func (p *play) until(name, what string, want func(*corev1.Pod) bool) *corev1.Pod {
	p.t.Helper()
	var pod *corev1.Pod
	p.wait(what, func() bool {
		pods := p.record.Pods(p.name)
		pod = nil
		if i := slices.IndexFunc(pods, func(pod *corev1.Pod) bool { return pod.Name == name }); i >= 0 {
			pod = pods[i]
		}
		return want(pod)
	})
	return pod
}

// row changes the task instance's row as Airflow does.
func (p *play) row(change func(*requeue.TaskInstance)) {
	p.t.Helper()
	row := p.task.Row()
	change(&row)
	assert.NoError(p.t, p.rows.Update(p.t.Context(), row))
}

// end is all that matters of how a play ended, the same for every chain: the pods that are left, what the executor saw,
// and how many replacements each pod had.
func (p *play) end() string {
	var lines []string
	for _, pod := range p.record.Pods(p.name) {
		lines = append(lines, history.Describe(pod))
	}
	for _, seen := range p.SawOfChain(p.name) {
		lines = append(lines, "the executor saw "+seen)
	}
	lines = append(lines, fmt.Sprintf("replacements of each replaced pod: %v", p.record.Replaced(p.name)))
	return strings.ReplaceAll(strings.Join(lines, "\n"), p.name, "pod")
}

// caughtUp returns when the executor's watch and the record have seen all that there is to see up to now: they see a pod
// that fails unheld at last.
func (s *stage) caughtUp(t *testing.T, marker string) {
	t.Helper()
	task := executor.NewTask("marker", marker, "manual__1", time.Now().UTC())
	task.Name = marker
	pod, err := s.Scheduler.Create(t.Context(), task)
	require.NoError(t, err)
	_, err = s.Kubelet.Reject(t.Context(), pod, "NodeAffinity", "a marker")
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		return slices.Contains(s.SawOfChain(marker), "failed "+marker) && slices.ContainsFunc(s.record.Pods(marker), func(pod *corev1.Pod) bool { return pod.Status.Phase == corev1.PodFailed })
	}, world.Patience, 20*time.Millisecond, "the marker is seen")
}
