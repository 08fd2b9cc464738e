package whole_test

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/airflow-requeue/airflow-requeue/internal/programs"
	"github.com/airflow-requeue/airflow-requeue/internal/testdb"
)

const (
	// patience is for what takes minutes on a busy machine.
	patience = 20 * time.Minute
	// pace is how often is looked for what must come.
	pace = 500 * time.Millisecond
)

// options are Airflow's own, as "section.name": value.
type options map[string]string

func (o options) environment() []string {
	var environment []string
	for _, option := range slices.Sorted(maps.Keys(o)) {
		environment = append(environment, "AIRFLOW__"+strings.ToUpper(strings.ReplaceAll(option, ".", "__"))+"="+o[option])
	}
	return environment
}

// workerOptions are what a task process needs to know: no database among it.
func (h *half) workerOptions() options {
	return options{
		"core.dags_folder":              filepath.Join(h.dir, "dags"),
		"core.execution_api_server_url": "http://" + h.api + "/execution/",
		"core.hostname_callable":        "pod_name.hostname",
		"core.load_examples":            "False",
		"logging.base_log_folder":       filepath.Join(h.dir, "logs"),
		// A busy machine is slow, and not broken.
		"core.dagbag_import_timeout":    "600",
		"workers.execution_api_timeout": "120",
	}
}

// serverOptions are those of scheduler, DAG processor and API server.
func (h *half) serverOptions(template string) options {
	_, port, err := net.SplitHostPort(h.api)
	require.NoError(h.T, err)
	o := h.workerOptions()
	delete(o, "core.hostname_callable")
	maps.Copy(o, options{
		"api.host":                                       testdb.Host,
		"api.port":                                       port,
		"api.workers":                                    "1",
		"api_auth.jwt_secret":                            "not a secret: signs the tokens of one run of a test, on loopback, and is long enough for it",
		"core.dags_are_paused_at_creation":               "False",
		"core.executor":                                  "KubernetesExecutor",
		"core.parallelism":                               "6",
		"core.simple_auth_manager_all_admins":            "True",
		"dag_processor.dag_file_processor_timeout":       "600",
		"database.sql_alchemy_conn":                      h.database.AirflowURL,
		"kubernetes_executor.config_file":                h.Kubeconfig(h.AirflowAccess()),
		"kubernetes_executor.in_cluster":                 "False",
		"kubernetes_executor.namespace":                  h.Namespace,
		"kubernetes_executor.pod_launch_failure_retries": "0", // its own requeue is off, in both halves
		"kubernetes_executor.pod_template_file":          template,
		"scheduler.enable_health_check":                  "False",
		"scheduler.scheduler_health_check_threshold":     "600",
		"scheduler.task_instance_heartbeat_timeout":      "1200",
	})
	return o
}

// startAirflow starts API server, DAG processor and scheduler; the last only when the first serves, as task processes
// would find nobody.
func (h *half) startAirflow() {
	h.T.Helper()
	environment := append(os.Environ(), h.serverOptions(h.podTemplate()).environment()...)
	environment = append(environment, "AIRFLOW_HOME="+h.dir, "ALERTS="+h.alerts())
	run := func(component string) *programs.Process {
		log := &programs.Log{}
		h.logs[component] = log
		p := programs.StartIn(h.T, log, environment, h.environment.Program("python"), "-m", "airflow", component)
		h.components = append(h.components, p)
		h.T.Cleanup(h.stopAirflow)
		return p
	}
	api := run("api-server")
	dags := run("dag-processor")
	h.until("Airflow's API server serves", func() bool {
		require.False(h.T, api.HasEnded() || dags.HasEnded(), "Airflow has ended")
		return h.serves()
	})
	h.say("Airflow's API server serves; its scheduler starts")
	h.scheduler = run("scheduler")
}

// stopAirflow has all components end their own processes, which would outlive one that is killed.
func (h *half) stopAirflow() {
	for _, p := range h.components {
		p.Signal(syscall.SIGTERM)
	}
	late := time.After(time.Minute)
	for _, p := range h.components {
		select {
		case <-p.Ended:
		case <-late:
			h.T.Log("Airflow has not ended within a minute of SIGTERM, and is killed")
			return
		}
	}
}

func (h *half) serves() bool {
	ctx, cancel := context.WithTimeout(h.T.Context(), 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+h.api+"/api/v2/version", http.NoBody)
	require.NoError(h.T, err)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return false
	}
	defer response.Body.Close()
	return response.StatusCode == http.StatusOK
}

// podTemplate is the pod of a task, with the environment of its process, as Airflow's Helm chart gives it.
func (h *half) podTemplate() string {
	var template strings.Builder
	template.WriteString("apiVersion: v1\nkind: Pod\nmetadata: {name: placeholder}\nspec:\n  restartPolicy: Never\n" +
		"  containers:\n    - name: base\n      image: apache/airflow:" + h.environment.Airflow + "\n      env:\n")
	for _, variable := range append(h.workerOptions().environment(), "AIRFLOW_HOME="+h.dir, "PYTHONPATH="+filepath.Join(h.dir, "worker")) {
		name, value, _ := strings.Cut(variable, "=")
		fmt.Fprintf(&template, "        - {name: %s, value: %q}\n", name, value)
	}
	return programs.File(h.T, "pod_template.yaml", []byte(template.String()))
}
