package executor

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// Adopt is try_adopt_task_instances for the rows of one dead scheduler: it lists that scheduler's pods, then relabels
// those of the rows one by one. No rows means all pods. The rows' queued_by_job_id follows when the scheduler commits,
// seconds later: that is the caller's. It returns the names of the adopted pods. A row has one pod adopted: of several,
// the first one listed.
func (s Scheduler) Adopt(ctx context.Context, dead int64, rows ...requeue.TaskInstance) ([]string, error) {
	pods, err := s.Adoptable(ctx, dead)
	if err != nil {
		return nil, err
	}
	wanted := map[taskTry]requeue.TaskInstance{}
	for _, row := range rows {
		wanted[taskTry{row.Key, row.TryNumber}] = row
	}
	var adopted []string
	done := map[taskTry]bool{}
	for i := range pods {
		pod := &pods[i]
		key, try, err := Identify(pod)
		if err != nil {
			return adopted, err
		}
		of := taskTry{key, try}
		row, ok := wanted[of]
		switch {
		case done[of], len(rows) > 0 && !ok, ok && s.ByID && instanceID(pod) != row.ID:
			continue
		}
		if err := s.AdoptPod(ctx, pod); err != nil {
			continue // the executor logs it, and the task is reset instead
		}
		done[of] = true
		adopted = append(adopted, pod.Name)
	}
	return adopted, nil
}

// taskTry is Airflow's TaskInstanceKey.
type taskTry struct {
	requeue.Key
	Try int
}

// Adoptable is the first half of Adopt: the list. What happens before AdoptPod is what a test of that race wants.
func (s Scheduler) Adoptable(ctx context.Context, dead int64) ([]corev1.Pod, error) {
	list, err := s.pods().List(ctx, metav1.ListOptions{
		FieldSelector: "status.phase!=Succeeded",
		LabelSelector: fmt.Sprintf("%s=True,%s=%s,%s!=True", requeue.LabelKubernetesExecutor,
			requeue.LabelWorker, worker(dead), requeue.LabelExecutorDone),
	})
	if err != nil {
		return nil, fmt.Errorf("listing the pods of dead scheduler job %d: %w", dead, err)
	}
	return list.Items, nil
}

// AdoptPod is adopt_launched_task: it relabels a pod by name, without a version. With ByID it writes the task
// instance's ID too.
func (s Scheduler) AdoptPod(ctx context.Context, pod *corev1.Pod) error {
	metadata := map[string]any{"labels": map[string]string{requeue.LabelWorker: worker(s.JobID)}}
	if s.ByID {
		metadata["annotations"] = map[string]string{"task_instance_id": instanceID(pod)}
	}
	patch, err := json.Marshal(map[string]any{"metadata": metadata})
	if err != nil {
		return fmt.Errorf("encoding the adoption of pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	_, err = s.pods().Patch(ctx, pod.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{})
	if err != nil {
		return fmt.Errorf("adopting pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	return nil
}

// AdoptSucceeded is _adopt_completed_pods, which provider 10.25 calls on adoption and every 300 s, and 10.1 on adoption
// only: succeeded pods that are not this scheduler's, nor (10.25) a living one's, come under its watch and are deleted
// by it. Pods without any airflow-worker are among them.
func (s Scheduler) AdoptSucceeded(ctx context.Context, alive ...int64) ([]string, error) {
	excluded := []string{worker(s.JobID)}
	for _, job := range alive {
		excluded = append(excluded, worker(job))
	}
	list, err := s.pods().List(ctx, metav1.ListOptions{
		FieldSelector: "status.phase=Succeeded",
		LabelSelector: fmt.Sprintf("%s=True,%s notin (%s),%s!=True", requeue.LabelKubernetesExecutor,
			requeue.LabelWorker, strings.Join(excluded, ","), requeue.LabelExecutorDone),
	})
	if err != nil {
		return nil, fmt.Errorf("listing the succeeded pods of other schedulers than %d: %w", s.JobID, err)
	}
	var adopted []string
	for _, pod := range list.Items {
		if err := s.patchLabel(ctx, pod.Name, requeue.LabelWorker, worker(s.JobID)); err == nil {
			adopted = append(adopted, pod.Name)
		}
	}
	return adopted, nil
}

// instanceID is kubernetes_executor_types.task_instance_id_from_pod: the annotation where there is one, else the
// workload in the pod's command; empty where neither tells.
func instanceID(pod *corev1.Pod) string {
	if id, ok := pod.Annotations["task_instance_id"]; ok {
		return id
	}
	for _, container := range pod.Spec.Containers {
		args := slices.Concat(container.Command, container.Args)
		at := slices.Index(args, "--json-string") + 1
		if at == 0 || at == len(args) || !slices.Contains(args, "airflow.sdk.execution_time.execute_workload") {
			continue
		}
		var load workload
		if json.Unmarshal([]byte(args[at]), &load) != nil {
			return ""
		}
		return load.TaskInstance.ID
	}
	return ""
}
