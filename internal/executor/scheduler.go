package executor

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// Scheduler is one scheduler's executor, as far as it writes to pods. Where the provider's generations differ, the
// method says so.
type Scheduler struct {
	Client kubernetes.Interface
	// Namespace is where the worker pods are.
	Namespace string
	// JobID is this scheduler's job.
	JobID int64
	// ByID is how provider 10.25 works with Airflow 3.4: a pod belongs to a task instance by its ID, not by its key.
	ByID bool
}

// Create submits a task's pod, in this scheduler's name and namespace (AirflowKubernetesScheduler.run_next).
func (s Scheduler) Create(ctx context.Context, task Task) (*corev1.Pod, error) {
	task.JobID, task.Namespace, task.ByID = s.JobID, s.Namespace, s.ByID
	pod, err := s.pods().Create(ctx, Pod(task), metav1.CreateOptions{})
	if err != nil {
		return nil, fmt.Errorf("creating the pod of %s: %w", task.Key, err)
	}
	return pod, nil
}

// Probe is what admission makes of a worker pod that this scheduler submits; none is created.
func (s Scheduler) Probe(ctx context.Context) (*corev1.Pod, error) {
	task := NewTask("probe", "probe", "manual__1", time.Now().UTC())
	task.JobID, task.Namespace = s.JobID, s.Namespace
	pod, err := s.pods().Create(ctx, Pod(task), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	if err != nil {
		return nil, fmt.Errorf("creating a pod as a dry run: %w", err)
	}
	return pod, nil
}

// Find is the pod in which the executor looks for a task (get_pod_combined_search_str_to_pod_map): whatever its phase
// and try, the last one listed of those that carry this scheduler's airflow-worker. clear_not_launched_queued_tasks of
// provider 10.1 sets a queued row back to scheduled when there is none. Nil when there is none.
func (s Scheduler) Find(ctx context.Context, key requeue.Key) (*corev1.Pod, error) {
	list, err := s.pods().List(ctx, metav1.ListOptions{LabelSelector: requeue.LabelWorker + "=" + worker(s.JobID)})
	if err != nil {
		return nil, fmt.Errorf("listing the pods of scheduler job %d: %w", s.JobID, err)
	}
	var found *corev1.Pod
	for i := range list.Items {
		if named, _, err := Identify(&list.Items[i]); err == nil && named == key {
			found = &list.Items[i]
		}
	}
	return found, nil
}

// Revoke is revoke_task, which the scheduler calls for a task that is stuck in queued: it marks the task's pod as
// revoked, so that its end is ignored, and deletes it. It returns the names of the pods that it revoked: the one that
// Find finds, or with ByID every attached pod of that ID, try and key, whichever scheduler's it is. None is no error: the
// scheduler queues the task anew all the same.
func (s Scheduler) Revoke(ctx context.Context, row requeue.TaskInstance) ([]string, error) {
	pods, err := s.revocable(ctx, row)
	if err != nil {
		return nil, err
	}
	var revoked []string
	for _, pod := range pods {
		// The executor deletes the pod even where marking it has failed.
		_ = s.MarkRevoked(ctx, pod)
		if err := s.Delete(ctx, pod); err != nil {
			return revoked, err
		}
		revoked = append(revoked, pod)
	}
	return revoked, nil
}

func (s Scheduler) revocable(ctx context.Context, row requeue.TaskInstance) ([]string, error) {
	if !s.ByID {
		pod, err := s.Find(ctx, row.Key)
		if err != nil || pod == nil {
			return nil, err
		}
		return []string{pod.Name}, nil
	}
	selected := Task{Key: row.Key, TryNumber: row.TryNumber}.labels()
	delete(selected, requeue.LabelAirflowVersion)
	delete(selected, requeue.LabelWorker)
	list, err := s.pods().List(ctx, metav1.ListOptions{
		LabelSelector: labels.Set(selected).String() + "," + requeue.LabelWorker,
	})
	if err != nil {
		return nil, fmt.Errorf("listing the pods of %s: %w", row.Key, err)
	}
	var names []string
	for i := range list.Items {
		if instanceID(&list.Items[i]) == row.ID {
			names = append(names, list.Items[i].Name)
		}
	}
	return names, nil
}

// MarkRevoked is patch_pod_revoked alone: the first of Revoke's two writes.
func (s Scheduler) MarkRevoked(ctx context.Context, pod string) error {
	return s.patchLabel(ctx, pod, requeue.LabelHold, "True")
}

// MarkDone is patch_pod_executor_done: with [kubernetes_executor] delete_worker_pods off, the executor takes a pod that
// ended out of its watch with it.
func (s Scheduler) MarkDone(ctx context.Context, pod string) error {
	return s.patchLabel(ctx, pod, requeue.LabelExecutorDone, "True")
}

// Delete is AirflowKubernetesScheduler.delete_pod: by name, without a precondition; a pod that is gone is fine.
func (s Scheduler) Delete(ctx context.Context, pod string) error {
	err := s.pods().Delete(ctx, pod, metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("deleting pod %s/%s: %w", s.Namespace, pod, err)
	}
	return nil
}

// Finish is what _change_state does to the pod of a result, with the provider's defaults (delete_worker_pods on,
// delete_worker_pods_on_failure off): a pod that succeeded is deleted, one that failed is left as it is, unmarked, and
// is seen again whenever the watch begins anew.
func (s Scheduler) Finish(ctx context.Context, seen Seen) error {
	if seen.State != Succeeded {
		return nil
	}
	return s.Delete(ctx, seen.Pod.Name)
}

// patchLabel writes without a version, as the executor does: the last writer wins.
func (s Scheduler) patchLabel(ctx context.Context, pod, label, value string) error {
	patch := fmt.Sprintf(`{"metadata":{"labels":{%q:%q}}}`, label, value)
	_, err := s.pods().Patch(ctx, pod, types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{})
	if err != nil {
		return fmt.Errorf("labelling pod %s/%s with %s: %w", s.Namespace, pod, label, err)
	}
	return nil
}

func (s Scheduler) pods() typedcorev1.PodInterface {
	return s.Client.CoreV1().Pods(s.Namespace)
}
