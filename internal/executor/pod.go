package executor

import (
	_ "embed"
	"fmt"
	"maps"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

//go:embed pod_template.yaml
var podTemplate []byte

// Pod is the worker pod that the executor submits for a task (PodGenerator.construct_pod with the Helm chart's pod
// template): what the API server, and so our webhook, is given.
func Pod(task Task) *corev1.Pod {
	pod := template()
	pod.Name = task.Name
	if pod.Name == "" {
		pod.Name = podName(task.DagID, task.TaskID, task.Suffix)
	}
	pod.Namespace = task.Namespace
	if pod.Namespace == "" {
		pod.Namespace = "airflow"
	}
	maps.Copy(pod.Labels, task.labels())
	maps.Copy(pod.Labels, task.Labels)
	pod.Annotations = task.annotations()
	maps.Copy(pod.Annotations, task.Annotations)

	base := &pod.Spec.Containers[0]
	base.Args = task.args()
	if task.Image != "" {
		base.Image = task.Image
	}
	base.Env = append(base.Env, corev1.EnvVar{Name: "AIRFLOW_IS_K8S_EXECUTOR_POD", Value: "True"})
	if task.Mutate != nil {
		task.Mutate(pod)
	}
	return pod
}

// labels is PodGenerator.build_labels_for_k8s_executor_pod.
func (t Task) labels() map[string]string {
	labels := map[string]string{
		"dag_id":                        safeLabel(t.DagID),
		"task_id":                       safeLabel(t.TaskID),
		"run_id":                        safeLabel(t.RunID),
		"try_number":                    strconv.Itoa(t.TryNumber),
		requeue.LabelKubernetesExecutor: "True",
		requeue.LabelAirflowVersion:     string(t.release()),
		requeue.LabelWorker:             worker(t.JobID),
	}
	if t.MapIndex >= 0 {
		labels["map_index"] = strconv.Itoa(t.MapIndex)
	}
	if t.ByID {
		labels["ti_id"] = t.ID
	}
	return labels
}

func (t Task) annotations() map[string]string {
	annotations := map[string]string{
		"dag_id":     t.DagID,
		"task_id":    t.TaskID,
		"run_id":     t.RunID,
		"try_number": strconv.Itoa(t.TryNumber),
	}
	if t.MapIndex >= 0 {
		annotations["map_index"] = strconv.Itoa(t.MapIndex)
	}
	if t.ByID {
		annotations["task_instance_id"] = t.ID
	}
	return annotations
}

// worker is the value of the label airflow-worker for a scheduler job.
func worker(jobID int64) string {
	return strconv.FormatInt(jobID, 10)
}

func template() *corev1.Pod {
	pod := &corev1.Pod{}
	if err := yaml.UnmarshalStrict(podTemplate, pod); err != nil {
		panic(fmt.Sprintf("reading the embedded pod template: %v", err)) // pinned by TestPod
	}
	pod.TypeMeta = metav1.TypeMeta{}
	return pod
}
