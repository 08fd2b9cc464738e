package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/airflow-requeue/airflow-requeue/internal/executor"
	"github.com/airflow-requeue/airflow-requeue/internal/world"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// account is who Airflow's scheduler is to the API server here.
const account = "airflow-scheduler"

// airflow is the scheduler with an account of its own.
func airflow(t *testing.T, w *world.World) executor.Scheduler {
	t.Helper()
	config, err := shared.servers.User(account, "system:masters")
	require.NoError(t, err)
	client, err := kubernetes.NewForConfig(config)
	require.NoError(t, err)
	return executor.Scheduler{Client: client, Namespace: w.Namespace, JobID: 1}
}

// watcherConfig is the access of the account that the webhook knows as the watcher's.
func watcherConfig(t *testing.T, w *world.World) *rest.Config {
	t.Helper()
	config, err := shared.servers.User("system:serviceaccount:"+w.Namespace+":airflow-requeue-watcher", "system:masters")
	require.NoError(t, err)
	return config
}

// firstHeld submits tasks until one is held: the webhook holds once it has seen a leader renew its Lease.
func firstHeld(t *testing.T, w *world.World, scheduler executor.Scheduler) *corev1.Pod {
	t.Helper()
	var pod *corev1.Pod
	require.Eventually(t, func() bool {
		created, err := scheduler.Create(t.Context(), w.Queue(fmt.Sprintf("early-%d", len(w.Pods()))))
		pod = created
		return assert.NoError(t, err) && requeue.Held(created)
	}, world.Patience, 200*time.Millisecond, "no pod is held")
	return pod
}

// evicted is a pod that is drained while its container is created.
func evicted(w *world.World, pod *corev1.Pod) {
	ctx := w.T.Context()
	pod, err := w.Kubelet.Bind(ctx, pod, "node-a")
	require.NoError(w.T, err)
	pod, err = w.Kubelet.Create(ctx, pod)
	require.NoError(w.T, err)
	require.NoError(w.T, w.Kubelet.Evict(ctx, pod))
	require.NoError(w.T, w.Kubelet.Terminate(ctx, pod, 137))
}

func TestWebhookAndWatcherReplaceAPodThatAirflowMade(t *testing.T) {
	t.Parallel()
	w := world.New(t, shared.servers.Config(), ddl)
	startWatcher(t, w, watcherConfig(t, w))
	startWebhook(t, w, account)
	pod := firstHeld(t, w, airflow(t, w))
	evicted(w, pod)
	replacement := w.Until(pod.Name+"-r1", "free to run", func(p *corev1.Pod) bool { return p != nil && !requeue.Gated(p) })
	assert.Equal(t, "1", replacement.Annotations[requeue.AnnotationAttempt], "the webhook let the watcher's pod pass as it was")
	assert.Empty(t, w.Saw())
}

func TestNoHoldIsLeftWhenNoWatcherLeads(t *testing.T) {
	t.Parallel()
	w := world.New(t, shared.servers.Config(), ddl)
	watcher := startWatcher(t, w, watcherConfig(t, w))
	startWebhook(t, w, account, "--lease-max-age=10s", "--no-leader-release-after=10s")
	scheduler := airflow(t, w)
	pod := firstHeld(t, w, scheduler)
	ended := firstHeld(t, w, scheduler)
	require.NoError(t, watcher.Process.Kill())
	_, err := watcher.Process.Wait()
	require.NoError(t, err)
	// It ends while nobody decides: Airflow hears of it when its hold is lifted.
	require.NoError(t, scheduler.Delete(t.Context(), ended.Name))

	require.Eventually(t, func() bool {
		for _, p := range w.Pods() {
			if requeue.Held(p) || requeue.Tracked(p) || len(p.Finalizers) > 0 {
				return false
			}
		}
		return true
	}, world.Patience, 100*time.Millisecond, "holds are left")
	assert.Equal(t, "1", w.Pods()[pod.Name].Labels[requeue.LabelWorker], "the pod is Airflow's again")
	w.UntilSaw("failed " + ended.Name)
	late, err := scheduler.Create(t.Context(), w.Queue("late"))
	require.NoError(t, err)
	assert.False(t, requeue.Tracked(late), "nothing new is held")
}
