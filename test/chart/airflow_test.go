package chart_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/airflow-requeue/airflow-requeue/internal/cluster"
	"github.com/airflow-requeue/airflow-requeue/internal/executor"
	"github.com/airflow-requeue/airflow-requeue/internal/programs"
	"github.com/airflow-requeue/airflow-requeue/internal/world"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// chart is the path of the chart, from this package.
const chart = "../../charts/airflow-requeue"

// airflow is one, as its official chart installs it as release airflow, in a namespace whose Deployments and Jobs run.
type airflow struct {
	*world.World
	site      *programs.Site
	scheduler executor.Scheduler // by the rights of its account
	played    *cluster.Cluster
	tasks     map[requeue.Key]executor.Task
	home      string // helm's and kubectl's
	access    string // their kubeconfig
}

func newAirflow(t *testing.T) *airflow {
	t.Helper()
	w := world.New(t, servers.Config(), filepath.Join("..", "..", "pkg", "tidb", "testdata", "3.3.2-sqlite.sql"))
	a := &airflow{World: w, site: programs.NewSite(w, servers), tasks: map[requeue.Key]executor.Task{}, home: t.TempDir()}
	a.scheduler, a.access = a.site.SchedulerAs(1), a.site.Kubeconfig(servers.Config())
	_, err := w.Client.CoreV1().Secrets(w.Namespace).Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "airflow-metadata"},
		StringData: map[string]string{"connection": w.DB.URL()}}, metav1.CreateOptions{})
	require.NoError(t, err)
	a.played = cluster.Play(t, servers, cluster.Options{Namespace: w.Namespace, Programs: images("v0.1.0", built),
		Flags: map[string][]string{"release": {"--request-timeout=1s"}}}) // no pod is created while it runs
	return a
}

// images are the paths of programs by their images' names.
func images(tag string, built programs.Built) map[string]string {
	const registry = "ghcr.io/airflow-requeue/"
	return map[string]string{registry + "watcher:" + tag: built["watcher"], registry + "webhook:" + tag: built["webhook"]}
}

// steady are values for a machine so busy that a watcher would lose its Lease, or that the webhook would not answer in the
// 2 s that it has.
func steady() []string {
	return []string{"--set=webhook.timeoutSeconds=30,watcher.extraArgs={--lease-duration=2m,--lease-renew-deadline=90s}," +
		"webhook.extraArgs={--lease-max-age=2m,--no-leader-release-after=3m}"}
}

// run is a user's command, in Airflow's namespace; it returns what it says.
func (a *airflow) run(program string, args ...string) string {
	a.T.Helper()
	out, err := a.command(a.T.Context(), program, append([]string{"--namespace=" + a.Namespace}, args...)...).CombinedOutput()
	require.NoError(a.T, err, "%s %v: %s\n%s", program, args, out, &a.played.Log)
	return string(out)
}

func (a *airflow) command(ctx context.Context, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), "HOME="+a.home, "KUBECONFIG="+a.access)
	return cmd
}

// install installs the chart, and returns when pods are held.
func (a *airflow) install(release string, args ...string) {
	a.T.Helper()
	a.run(helm, append([]string{"install", release, chart}, args...)...)
	programs.UntilStamping(a.T, a.scheduler)
}

// held has Airflow submit a pod, which the webhook holds.
func (a *airflow) held(taskID string) *corev1.Pod {
	a.T.Helper()
	task := a.Queue(taskID)
	a.tasks[task.Key] = task
	pod, err := a.scheduler.Create(a.T.Context(), task)
	require.NoError(a.T, err)
	require.True(a.T, requeue.Held(pod), "pod %s is not held", pod.Name)
	return pod
}

// outcome is what becomes of a held pod: what happens to it, and what has come of that when it is settled.
type outcome struct {
	name  string
	play  func(*airflow, *corev1.Pod)
	until func(*airflow, *corev1.Pod)
}

// outcomes are one of each kind.
func outcomes() []outcome {
	return []outcome{{"requeue", (*airflow).reject, (*airflow).untilReplaced},
		{"report", (*airflow).fail, (*airflow).untilReported}, {"release", (*airflow).begin, (*airflow).untilReleased}}
}

// reject has the pod's kubelet reject it.
func (a *airflow) reject(pod *corev1.Pod) {
	a.T.Helper()
	pod, err := a.Kubelet.Bind(a.T.Context(), pod, "node-a")
	require.NoError(a.T, err)
	_, err = a.Kubelet.Reject(a.T.Context(), pod, "OutOfcpu", "no room")
	require.NoError(a.T, err)
}

// untilReplaced waits for the replacement, which the webhook let through as it was, and has its task run to its end.
func (a *airflow) untilReplaced(pod *corev1.Pod) {
	a.T.Helper()
	next := a.Until(pod.Name+"-r1", "it may run", func(p *corev1.Pod) bool { return p != nil && !requeue.Gated(p) })
	require.True(a.T, requeue.Held(next))
	a.begin(next)
	a.untilReleased(next)
	require.Empty(a.T, a.SawOf(a.key(pod)), "Airflow saw something of it")
}

// fail has the pod's container fail by itself.
func (a *airflow) fail(pod *corev1.Pod) {
	a.T.Helper()
	_, err := a.Kubelet.Fail(a.T.Context(), a.started(pod))
	require.NoError(a.T, err)
}

// untilReported waits for Airflow's executor to see the failure.
func (a *airflow) untilReported(pod *corev1.Pod) {
	a.T.Helper()
	a.Until(pod.Name, "it is reported", func(*corev1.Pod) bool { return len(a.SawOf(a.key(pod))) > 0 })
	require.Equal(a.T, []string{"failed " + pod.Name}, a.SawOf(a.key(pod)))
	a.untilReleased(pod)
}

// begin has the pod's task start.
func (a *airflow) begin(pod *corev1.Pod) {
	a.T.Helper()
	pod = a.started(pod)
	row := a.tasks[a.key(pod)].Row()
	row.State, row.Hostname = requeue.StateRunning, pod.Name
	require.NoError(a.T, a.DB.Update(a.T.Context(), row))
}

// untilReleased waits for all that is ours to be off the pod, and Airflow to have it.
func (a *airflow) untilReleased(pod *corev1.Pod) {
	a.T.Helper()
	a.Until(pod.Name, "it is released", func(p *corev1.Pod) bool {
		return p != nil && !requeue.Tracked(p) && !requeue.Held(p) && len(p.Finalizers) == 0 && requeue.Attached(p)
	})
}

func (a *airflow) started(pod *corev1.Pod) *corev1.Pod {
	a.T.Helper()
	pod, err := a.Kubelet.Bind(a.T.Context(), pod, "node-b")
	require.NoError(a.T, err)
	pod, err = a.Kubelet.Start(a.T.Context(), pod)
	require.NoError(a.T, err)
	return pod
}

func (a *airflow) key(pod *corev1.Pod) requeue.Key {
	a.T.Helper()
	key, _, err := executor.Identify(pod)
	require.NoError(a.T, err)
	return key
}
