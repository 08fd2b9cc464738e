package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/airflow-requeue/airflow-requeue/internal/airflow"
	"github.com/airflow-requeue/airflow-requeue/internal/kubelet"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// itself is Airflow's own executor, with its own requeue and its own defaults, in a namespace without us.
type itself struct {
	*site
	scheduler *airflow.Scheduler
	kubelets  *kubelet.Kubelet

	mu      sync.Mutex
	created map[string][]freed // by task
	news    chan struct{}
}

// withAirflow runs f beside Airflow's own executor.
func (s *stage) withAirflow(f func(*itself)) {
	s.Helper()
	s.with(func(i *site) {
		environment, err := airflow.Install(i.t.Context(), s.options.Progress, airflow.Newest())
		require.NoError(i.t, err)
		database := environment.Metadata(i.t).Create(i.t, "airflow")
		dir, err := os.MkdirTemp("", "bench-") // a socket's path has to be short
		require.NoError(i.t, err)
		i.t.Cleanup(func() { _ = os.RemoveAll(dir) })
		process, err := environment.Start(i.t.Context(), dir)
		require.NoError(i.t, err)
		i.t.Cleanup(process.Stop)
		scheduler, err := process.Fork(i.t.Context(), airflow.Settings{Log: filepath.Join(dir, "scheduler.log"), Options: map[string]string{
			"api_auth.jwt_secret":                             "not a secret: signs the tokens of a benchmark, which nobody verifies, and is long enough",
			"database.sql_alchemy_conn":                       database.AirflowURL,
			"kubernetes_executor.config_file":                 i.Kubeconfig(i.AirflowAccess()),
			"kubernetes_executor.in_cluster":                  "False",
			"kubernetes_executor.namespace":                   i.Namespace,
			"kubernetes_executor.pod_template_file":           filepath.Join(s.root, "internal/executor/pod_template.yaml"),
			"kubernetes_executor.worker_container_repository": "apache/airflow",
			"kubernetes_executor.worker_container_tag":        environment.Airflow,
			"core.parallelism":                                "1000",
		}})
		require.NoError(i.t, err)
		i.t.Cleanup(scheduler.Kill)
		require.NoError(i.t, scheduler.Start(i.t.Context()))
		a := &itself{site: i, scheduler: scheduler, created: map[string][]freed{}, news: make(chan struct{}, 1),
			kubelets: kubelet.New(s.client, kubelet.Options{Namespace: i.Namespace})}
		a.watch()
		f(a)
	})
}

// watch takes down when each pod of a task was created.
func (a *itself) watch() {
	a.t.Helper()
	watch, err := a.client.CoreV1().Pods(a.Namespace).Watch(a.t.Context(), metav1.ListOptions{})
	require.NoError(a.t, err)
	a.t.Cleanup(watch.Stop)
	go func() {
		seen := map[string]bool{}
		for event := range watch.ResultChan() {
			pod, ok := event.Object.(*corev1.Pod)
			if !ok || seen[pod.Name] {
				continue
			}
			seen[pod.Name] = true
			a.mu.Lock()
			task := pod.Annotations["task_id"]
			a.created[task] = append(a.created[task], freed{pod: pod, when: time.Now()})
			a.mu.Unlock()
			select {
			case a.news <- struct{}{}:
			default:
			}
		}
	}()
}

// pod waits for the nth pod of a task.
func (a *itself) pod(key requeue.Key, n int) freed {
	a.t.Helper()
	for deadline := time.After(5 * time.Minute); ; {
		a.mu.Lock()
		pods := a.created[key.TaskID]
		a.mu.Unlock()
		if len(pods) > n {
			return pods[n]
		}
		select {
		case <-a.news:
		case <-time.After(50 * time.Millisecond):
		case <-deadline:
			require.FailNow(a.t, "Airflow's executor makes no pod", "number %d of %s", n+1, key.TaskID)
		}
	}
}

// queue has tasks queued, and returns when the containers of their pods are being made.
func (a *itself) queue(name string, n int) []requeue.Key {
	a.t.Helper()
	keys := make([]requeue.Key, n)
	for k := range keys {
		keys[k] = requeue.Key{DagID: "bench", TaskID: fmt.Sprintf("%s_%03d", name, k), RunID: "manual__1", MapIndex: -1}
		require.NoError(a.t, a.scheduler.Add(a.t.Context(), keys[k]))
		require.NoError(a.t, a.scheduler.Queue(a.t.Context(), keys[k], map[string]string{}, ""))
	}
	for _, key := range keys {
		pod, err := a.kubelets.Bind(a.t.Context(), a.pod(key, 0).pod, "node")
		require.NoError(a.t, err)
		_, err = a.kubelets.Create(a.t.Context(), pod)
		require.NoError(a.t, err)
	}
	return keys
}

// fail has the first pods of tasks fail, one right after the other, and returns when the last was written.
func (a *itself) fail(keys []requeue.Key) (first, last time.Time) {
	a.t.Helper()
	for k, key := range keys {
		pod, err := a.client.CoreV1().Pods(a.Namespace).Get(a.t.Context(), a.pod(key, 0).pod.Name, metav1.GetOptions{})
		require.NoError(a.t, err)
		_, err = evicted(a.t.Context(), a.kubelets, pod)
		require.NoError(a.t, err)
		if k == 0 {
			first = time.Now()
		}
	}
	return first, time.Now()
}

// airflowRecovers has pods fail one at a time, and Airflow's own executor requeue them.
func (s *stage) airflowRecovers() {
	s.withAirflow(func(a *itself) {
		n, warm := s.few(30, 1), s.few(2, 0)
		series := s.report.series("recovery.replaced", "s", "who", "Airflow "+airflow.Newest().Airflow)
		for k := range n + warm {
			keys := a.queue(fmt.Sprintf("alone_%d", k), 1)
			_, written := a.fail(keys)
			took := a.pod(keys[0], 1).when.Sub(written).Seconds()
			if k < warm {
				series.Discarded++
				continue
			}
			series.add(took)
		}
		s.say("recovery by Airflow's own requeue: p50 %.0f ms, p99 %.0f ms", series.P50*1e3, series.P99*1e3)
	})
}

// airflowStorms has pods fail at once, and Airflow's own executor requeue them.
func (s *stage) airflowStorms() {
	s.withAirflow(func(a *itself) {
		for _, n := range []int{s.few(30, 2), s.few(100, 3)} {
			keys := a.queue(fmt.Sprintf("storm_%d", n), n)
			began, _ := a.fail(keys)
			var last time.Time
			for _, key := range keys {
				if at := a.pod(key, 1).when; at.After(last) {
					last = at
				}
			}
			labels := []any{"who", "Airflow " + airflow.Newest().Airflow, "pods", n}
			s.report.series("storm.rate", "pods/s", labels...).add(float64(n) / last.Sub(began).Seconds())
			s.report.series("storm.took", "s", labels...).add(last.Sub(began).Seconds())
			for _, key := range keys {
				a.mu.Lock()
				require.Len(a.t, a.created[key.TaskID], 2, "pods of %s", key.TaskID)
				a.mu.Unlock()
			}
			s.say("storm of %d pods by Airflow's own requeue: %.2f replaced a second", n, s.report.find("storm.rate", labels...).last())
		}
	})
}
