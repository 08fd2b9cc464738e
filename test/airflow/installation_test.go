package airflow_test

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/airflow-requeue/airflow-requeue/internal/airflow"
	"github.com/airflow-requeue/airflow-requeue/internal/faultproxy"
	"github.com/airflow-requeue/airflow-requeue/internal/history"
	"github.com/airflow-requeue/airflow-requeue/internal/kubelet"
	"github.com/airflow-requeue/airflow-requeue/internal/programs"
	"github.com/airflow-requeue/airflow-requeue/internal/world"
)

// installation is an Airflow in namespaces of its own, with airflow-requeue where it is installed.
type installation struct {
	*airflow.Process
	*programs.Site
	version   airflow.Version
	dir       string
	said      programs.Log               // by webhook and watcher
	front     *faultproxy.Proxy          // between watcher and API server
	options   map[string]string          // of Airflow
	database  *airflow.Scheduler         // a process that is no scheduler
	scheduler *airflow.Scheduler         // of all stages that have none of their own
	records   map[string]*history.Record // by namespace

	mu     sync.Mutex
	stages map[string]*stage // by DAG
}

// newInstallation makes a database and namespaces, as many as wanted beside the executor's, and starts a scheduler;
// kubelets run what comes.
func newInstallation(t *testing.T, of *release, others int) *installation {
	t.Helper()
	w := world.Bare(t, shared.Servers.Config())
	database := of.metadata.Create(t, strings.ReplaceAll(w.Namespace, "-", "_"))
	i := &installation{Process: of.Process, version: of.Version, dir: t.TempDir(), stages: map[string]*stage{}, records: map[string]*history.Record{},
		Site: &programs.Site{World: w, Servers: shared.Servers, DatabaseURL: database.WatcherURL}}
	for range others {
		i.Others = append(i.Others, world.Namespace(t, i.Client))
	}
	for _, namespace := range i.Namespaces() {
		i.records[namespace] = history.Watch(t, i.Client, namespace)
		i.RunKubelets(kubelet.Options{Namespace: namespace, Script: i.script, Failed: func(err error) { t.Logf("kubelet: %v", err) }})
	}
	template, err := filepath.Abs(root + "/internal/executor/pod_template.yaml")
	require.NoError(t, err)
	i.options = map[string]string{
		"api_auth.jwt_secret":                                 "not a secret: signs the tokens of tests, which nobody verifies, and is long enough",
		"database.sql_alchemy_conn":                           database.AirflowURL,
		"kubernetes_executor.config_file":                     i.Kubeconfig(i.AirflowAccess()),
		"kubernetes_executor.in_cluster":                      "False",
		"kubernetes_executor.namespace":                       i.Namespace,
		"kubernetes_executor.pod_template_file":               template,
		"kubernetes_executor.worker_container_repository":     "apache/airflow",
		"kubernetes_executor.worker_container_tag":            of.Airflow,
		"kubernetes_executor.worker_pods_creation_batch_size": "16",
		"kubernetes_executor.pod_launch_failure_retries":      "0",
		// Who is dead is said, not waited for.
		"scheduler.scheduler_health_check_threshold": "3600",
	}
	if others > 0 {
		i.options["kubernetes_executor.multi_namespace_mode"] = "True"
		i.options["kubernetes_executor.multi_namespace_mode_namespace_list"] = strings.Join(i.Namespaces(), ",")
	}
	i.database = i.fork("database", nil)
	i.scheduler = i.start("scheduler", nil)
	return i
}

// start starts a scheduler with options of its own. Its log is in the file of its name.
func (i *installation) start(name string, options map[string]string) *airflow.Scheduler {
	i.T.Helper()
	s := i.fork(name, options)
	require.NoError(i.T, s.Start(i.T.Context()))
	return s
}

// fork is a process of Airflow's code, with options of its own.
func (i *installation) fork(name string, options map[string]string) *airflow.Scheduler {
	i.T.Helper()
	settings := airflow.Settings{Options: map[string]string{}, Log: filepath.Join(i.dir, name+".log")}
	maps.Copy(settings.Options, i.options)
	maps.Copy(settings.Options, options)
	s, err := i.Fork(i.T.Context(), settings)
	require.NoError(i.T, err)
	i.T.Cleanup(s.Kill)
	return s
}

func (i *installation) script(pod *corev1.Pod) kubelet.Script {
	i.mu.Lock()
	s := i.stages[pod.Annotations["dag_id"]]
	i.mu.Unlock()
	if s == nil {
		return kubelet.Script{Unschedulable: "no test wants it"}
	}
	return s.script(pod)
}

// install installs airflow-requeue.
func (i *installation) install() {
	i.T.Helper()
	i.T.Cleanup(func() {
		if i.T.Failed() {
			i.T.Logf("webhook and watcher:\n%s", i.said.About("level=WARN", "level=ERROR", "panic"))
		}
	})
	i.front = faultproxy.New(i.T, i.Access(i.WatcherUser()))
	i.Install(shared.Built, &i.said, i.front.Config())
}

// read is what a file of the installation has, a log mostly; empty when there is none.
func (i *installation) read(name string) string {
	content, err := os.ReadFile(filepath.Join(i.dir, name))
	if err != nil {
		return ""
	}
	return string(content)
}
