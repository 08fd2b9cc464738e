package airflow_test

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/airflow-requeue/airflow-requeue/internal/airflow"
	"github.com/airflow-requeue/airflow-requeue/internal/faultproxy"
	"github.com/airflow-requeue/airflow-requeue/internal/history"
	"github.com/airflow-requeue/airflow-requeue/internal/kubelet"
	"github.com/airflow-requeue/airflow-requeue/internal/programs"
	"github.com/airflow-requeue/airflow-requeue/internal/world"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// installation is an Airflow in namespaces of its own, with airflow-requeue where it is installed.
type installation struct {
	*airflow.Process
	*programs.Site
	version    airflow.Version
	namespaces []string // the first is the executor's
	dir        string
	said       programs.Log               // by webhook and watcher
	front      *faultproxy.Proxy          // between watcher and API server
	options    map[string]string          // of Airflow
	database   *airflow.Scheduler         // a process that is no scheduler
	scheduler  *airflow.Scheduler         // of all stages that have none of their own
	records    map[string]*history.Record // by namespace

	mu     sync.Mutex
	stages map[string]*stage // by DAG
}

// newInstallation makes namespaces and a database, and starts a scheduler; kubelets run what comes.
func newInstallation(t *testing.T, of *release, namespaces int, options map[string]string) *installation {
	t.Helper()
	client, err := kubernetes.NewForConfig(shared.Servers.Config())
	require.NoError(t, err)
	i := &installation{Process: of.Process, version: of.Version, dir: t.TempDir(), stages: map[string]*stage{}, records: map[string]*history.Record{},
		Site: &programs.Site{World: &world.World{T: t, Client: client}, Servers: shared.Servers}}
	for range namespaces {
		ns, err := client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "airflow-"}}, metav1.CreateOptions{})
		require.NoError(t, err)
		i.namespaces = append(i.namespaces, ns.Name)
		i.records[ns.Name] = history.Watch(t, client, ns.Name)
		i.runKubelets(ns.Name)
	}
	i.Namespace, i.DatabaseURL = i.namespaces[0], "sqlite:///"+filepath.Join(i.dir, "airflow.db")
	database, err := of.Database()
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(i.dir, "airflow.db"), database, 0o600))
	template, err := filepath.Abs(root + "/internal/executor/pod_template.yaml")
	require.NoError(t, err)
	i.options = map[string]string{
		"api_auth.jwt_secret":                                 "not a secret: signs the tokens of tests, which nobody verifies, and is long enough",
		"database.sql_alchemy_conn":                           i.DatabaseURL,
		"kubernetes_executor.config_file":                     i.Kubeconfig(i.Access(programs.Airflow)),
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
	maps.Copy(i.options, options)
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

// runKubelets has kubelets run the pods of a namespace, as the stages say.
func (i *installation) runKubelets(namespace string) {
	ctx, cancel := context.WithCancel(context.Background())
	kubelets := kubelet.New(i.Client, kubelet.Options{Namespace: namespace, Script: i.script,
		Failed: func(err error) { i.T.Logf("kubelet: %v", err) }})
	var playing sync.WaitGroup
	playing.Go(func() { _ = kubelets.Run(ctx) })
	i.T.Cleanup(func() {
		cancel()
		playing.Wait()
	})
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

// install starts webhook and watcher, and waits until pods are held.
func (i *installation) install() {
	i.T.Helper()
	i.KeysDir = filepath.Join(i.dir, "keys")
	require.NoError(i.T, os.Mkdir(i.KeysDir, 0o700))
	require.NoError(i.T, os.WriteFile(filepath.Join(i.KeysDir, "current"), []byte("k1"), 0o600))
	require.NoError(i.T, os.WriteFile(filepath.Join(i.KeysDir, "k1"), []byte("a secret of the tests, 32 bytes or more"), 0o600))
	common := []string{"--metrics-listen=127.0.0.1:0", "--log-format=text"}
	for _, other := range i.namespaces[1:] {
		common = append(common, "--namespace="+other)
	}
	i.front = faultproxy.New(i.T, i.Access(i.WatcherUser()))
	watcher := slices.Concat(i.WatcherFlags(i.front.Config()), programs.Steady(), common)
	programs.Start(i.T, &i.said, shared.Built["watcher"], watcher...)
	// The webhook's own timeout is 2 s; a busy machine must not let a pod through unheld.
	webhook := append(i.RegisterWebhook(30), common...)
	i.registerOthers()
	programs.Start(i.T, &i.said, shared.Built["webhook"], append(webhook, "--lease-max-age=2m", "--no-leader-release-after=3m")...)
	i.untilHolding()
}

// registerOthers has the API server ask the webhook about all of the namespaces.
func (i *installation) registerOthers() {
	i.T.Helper()
	configurations := i.Client.AdmissionregistrationV1().MutatingWebhookConfigurations()
	registered, err := configurations.Get(i.T.Context(), i.Namespace, metav1.GetOptions{})
	require.NoError(i.T, err)
	registered.Webhooks[0].NamespaceSelector = &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{
		{Key: corev1.LabelMetadataName, Operator: metav1.LabelSelectorOpIn, Values: i.namespaces}}}
	_, err = configurations.Update(i.T.Context(), registered, metav1.UpdateOptions{})
	require.NoError(i.T, err)
}

// untilHolding waits for the webhook to hold: it does once it has seen a leader renew its Lease.
func (i *installation) untilHolding() {
	i.T.Helper()
	client, err := kubernetes.NewForConfig(i.Access(programs.Airflow))
	require.NoError(i.T, err)
	probe := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "probe", Labels: map[string]string{requeue.LabelKubernetesExecutor: "True", requeue.LabelWorker: "1"},
			Annotations: map[string]string{"dag_id": "probe", "task_id": "probe", "run_id": "probe", "try_number": "1"}},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "base", Image: "probe"}}},
	}
	require.Eventually(i.T, func() bool {
		pod, err := client.CoreV1().Pods(i.Namespace).Create(i.T.Context(), probe, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return err == nil && requeue.Held(pod)
	}, patience, pace, "no pod is held:\n%s", &i.said)
}

// read is what a file of the installation has, a log mostly; empty when there is none.
func (i *installation) read(name string) string {
	content, err := os.ReadFile(filepath.Join(i.dir, name))
	if err != nil {
		return ""
	}
	return string(content)
}
