package cluster

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// deployment is what runs of one.
type deployment struct {
	pods    []*running
	leaving []*running // told to stop
}

func (c *Cluster) lookAtDeployments(ctx context.Context) error {
	list, err := c.client.AppsV1().Deployments(c.Namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	there := map[string]bool{}
	for i := range list.Items {
		d := &list.Items[i]
		there[d.Name] = true
		if c.deployments[d.Name] == nil {
			c.deployments[d.Name] = &deployment{}
		}
		if err := c.roll(ctx, d, c.deployments[d.Name]); err != nil {
			return err
		}
	}
	for name, d := range c.deployments {
		if !there[name] { // the garbage collector's work
			d.leave(d.pods...)
			d.forget()
		}
	}
	return nil
}

// roll takes a step of a rolling update with maxSurge 1 and maxUnavailable 0.
func (c *Cluster) roll(ctx context.Context, d *appsv1.Deployment, have *deployment) error {
	have.forget()
	hash, err := hashOf(d.Spec.Template)
	if err != nil {
		return err
	}
	replicas := int(*d.Spec.Replicas)
	fresh, old, ready := have.sorted(hash)
	switch {
	case len(fresh) > replicas:
		have.leave(fresh[replicas:]...)
	case len(fresh) < replicas && len(have.pods) <= replicas:
		have.pods = append(have.pods, c.start(context.WithoutCancel(ctx), d.Name, hash, d.Spec.Template, false))
	case len(old) > 0 && (ready > replicas || !old[0].isReady() && len(have.pods) > replicas):
		have.leave(old[0])
	}
	fresh, _, ready = have.sorted(hash)
	status := appsv1.DeploymentStatus{ObservedGeneration: d.Generation, Replicas: count(len(have.pods)), UpdatedReplicas: count(len(fresh)),
		ReadyReplicas: count(ready), AvailableReplicas: count(ready), UnavailableReplicas: count(max(0, replicas-ready)),
		Conditions: []appsv1.DeploymentCondition{{Type: appsv1.DeploymentAvailable, Status: condition(ready >= replicas)},
			{Type: appsv1.DeploymentProgressing, Status: corev1.ConditionTrue}}}
	was, _ := json.Marshal(d.Status)
	if is, err := json.Marshal(status); err != nil || string(was) == string(is) {
		return err
	}
	d.Status = status
	_, err = c.client.AppsV1().Deployments(c.Namespace).UpdateStatus(ctx, d, metav1.UpdateOptions{})
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return nil // the next look sees why
	}
	return err
}

// sorted are the pods of a template and all others, and how many are ready.
func (d *deployment) sorted(hash string) (fresh, old []*running, ready int) {
	for _, r := range d.pods {
		if r.hash == hash {
			fresh = append(fresh, r)
		} else {
			old = append(old, r)
		}
		if r.isReady() {
			ready++
		}
	}
	return fresh, old, ready
}

func count(n int) int32 { return int32(n) } //nolint:gosec // few

func condition(is bool) corev1.ConditionStatus {
	if is {
		return corev1.ConditionTrue
	}
	return corev1.ConditionFalse
}

// leave tells pods to stop.
func (d *deployment) leave(pods ...*running) {
	for _, r := range slices.Clone(pods) {
		r.stop()
		d.leaving = append(d.leaving, r)
		d.pods = slices.DeleteFunc(d.pods, func(other *running) bool { return other == r })
	}
}

// forget drops the pods of which nothing is left.
func (d *deployment) forget() {
	d.leaving = slices.DeleteFunc(d.leaving, func(r *running) bool {
		select {
		case <-r.ended:
			return true
		default:
			return false
		}
	})
}

// hashOf tells templates apart.
func hashOf(template corev1.PodTemplateSpec) (string, error) {
	raw, err := json.Marshal(template)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:4]), nil
}
