package cluster

import (
	"context"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// job is what ran of one.
type job struct {
	uid  types.UID
	pods []*running
	over bool
}

func (c *Cluster) lookAtJobs(ctx context.Context) error {
	list, err := c.client.BatchV1().Jobs(c.Namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	there := map[types.UID]bool{}
	for i := range list.Items {
		j := &list.Items[i]
		there[j.UID] = true
		have := c.jobs[string(j.UID)]
		if have == nil {
			have = &job{uid: j.UID}
			c.jobs[string(j.UID)] = have
		}
		if err := c.work(ctx, j, have); err != nil {
			return err
		}
	}
	for key, have := range c.jobs {
		if there[have.uid] {
			continue
		}
		for _, r := range have.pods { // the garbage collector's work
			r.stop()
			<-r.ended
			r.remove()
		}
		delete(c.jobs, key)
	}
	return nil
}

// work runs a Job's pod, again while it fails and may be tried, and says in its status how it went.
func (c *Cluster) work(ctx context.Context, j *batchv1.Job, have *job) error {
	if have.over {
		return nil
	}
	if len(have.pods) == 0 {
		return c.attempt(ctx, j, have)
	}
	code := have.pods[len(have.pods)-1].exitCode()
	switch {
	case code == nil:
		return nil
	case *code == 0:
		return c.finish(ctx, j, have, batchv1.JobSuccessCriteriaMet, batchv1.JobComplete)
	case len(have.pods) > int(*j.Spec.BackoffLimit):
		return c.finish(ctx, j, have, batchv1.JobFailureTarget, batchv1.JobFailed)
	}
	return c.attempt(ctx, j, have)
}

func (c *Cluster) attempt(ctx context.Context, j *batchv1.Job, have *job) error {
	hash, err := hashOf(j.Spec.Template)
	if err != nil {
		return err
	}
	have.pods = append(have.pods, c.start(context.WithoutCancel(ctx), j.Name, hash, j.Spec.Template, true))
	return nil
}

func (c *Cluster) finish(ctx context.Context, j *batchv1.Job, have *job, conditions ...batchv1.JobConditionType) error {
	now := metav1.Now()
	j.Status.StartTime = &now
	failed := len(have.pods)
	if conditions[0] == batchv1.JobSuccessCriteriaMet {
		j.Status.CompletionTime, j.Status.Succeeded = &now, 1
		failed--
	}
	j.Status.Failed = int32(failed) //nolint:gosec // few
	for _, kind := range conditions {
		j.Status.Conditions = append(j.Status.Conditions, batchv1.JobCondition{Type: kind, Status: corev1.ConditionTrue, LastTransitionTime: now})
	}
	_, err := c.client.BatchV1().Jobs(c.Namespace).UpdateStatus(ctx, j, metav1.UpdateOptions{})
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return nil
	}
	have.over = err == nil
	return err
}
