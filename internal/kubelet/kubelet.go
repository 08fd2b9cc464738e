// Package kubelet plays the scheduler and the kubelets for pods in a real API server that has none: it binds pods,
// writes their statuses in the order in which a real kubelet writes them, and finishes deletions. Pods are driven by
// hand, one method for one thing that happens to a pod, or all by themselves by Run.
package kubelet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/client-go/kubernetes"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/utils/clock"
)

// outagePause is the wait before a request is made again that got no answer.
const outagePause = 100 * time.Millisecond

// Options tune a Kubelet; the zero value is good.
type Options struct {
	// Namespace confines Run to one namespace; empty means all.
	Namespace string
	// Clock defaults to the real one. Status times and waits are read from it.
	Clock clock.Clock
	// Script says what becomes of a pod that Run sees for the first time; nil means Default.
	Script func(*corev1.Pod) Script
	// GarbageCollection is how long after its deletion an unscheduled pod is set Failed by the pod garbage collector
	// (up to 20 s in a real cluster); negative means never.
	GarbageCollection time.Duration
	// Failed is told, from many goroutines, what Run could not write; nil drops it. A pod that is gone is no failure.
	Failed func(error)
}

// Kubelet drives pods. Its methods may be called at any time, also while Run runs; a method for one pod's happening
// returns the pod as it was written last.
type Kubelet struct {
	client  kubernetes.Interface
	options Options
	nodes   *nodes
	running bool // its methods are called by Run: see newest and answered
}

// New is a Kubelet with no nodes: until AddNode is called, pods are bound to a node "node" without an object.
func New(client kubernetes.Interface, options Options) *Kubelet {
	if options.Clock == nil {
		options.Clock = clock.RealClock{}
	}
	if options.Script == nil {
		options.Script = Default
	}
	if options.Failed == nil {
		options.Failed = func(error) {}
	}
	return &Kubelet{
		client:  client,
		options: options,
		nodes:   newNodes(),
	}
}

// write brings a pod's status to what change makes of it, as a kubelet does: the difference to the status that was
// read, as a strategic merge patch that names the pod's UID, and no version.
func (k *Kubelet) write(ctx context.Context, pod *corev1.Pod,
	change func(*corev1.Pod, metav1.Time) corev1.PodStatus) (*corev1.Pod, error) {
	old, err := k.newest(ctx, pod)
	if err != nil {
		return pod, err
	}
	status := change(old, k.now())
	status.ObservedGeneration = old.Generation
	return k.patchStatus(ctx, old, status)
}

func (k *Kubelet) patchStatus(ctx context.Context, old *corev1.Pod, status corev1.PodStatus) (*corev1.Pod, error) {
	before, err := json.Marshal(corev1.Pod{Status: old.Status})
	if err != nil {
		return old, fmt.Errorf("encoding the status of pod %s/%s: %w", old.Namespace, old.Name, err)
	}
	after, err := json.Marshal(corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: old.UID}, Status: status})
	if err != nil {
		return old, fmt.Errorf("encoding the new status of pod %s/%s: %w", old.Namespace, old.Name, err)
	}
	patch, err := strategicpatch.CreateTwoWayMergePatch(before, after, corev1.Pod{})
	if err != nil {
		return old, fmt.Errorf("comparing statuses of pod %s/%s: %w", old.Namespace, old.Name, err)
	}
	var written *corev1.Pod
	err = k.answered(ctx, func() error {
		written, err = k.pods(old).Patch(ctx, old.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
		return err
	})
	if err != nil {
		return old, fmt.Errorf("writing the status of pod %s/%s: %w", old.Namespace, old.Name, err)
	}
	return written, nil
}

// newest is the pod as it is now. Run gives every step the pod as the step before wrote it, and no one else writes
// what a kubelet does: there it is not read again.
func (k *Kubelet) newest(ctx context.Context, pod *corev1.Pod) (*corev1.Pod, error) {
	if k.running {
		return pod, nil
	}
	return k.read(ctx, pod)
}

// read reads the pod, and refuses another one of the same name.
func (k *Kubelet) read(ctx context.Context, pod *corev1.Pod) (*corev1.Pod, error) {
	var live *corev1.Pod
	err := k.answered(ctx, func() (err error) {
		live, err = k.pods(pod).Get(ctx, pod.Name, metav1.GetOptions{})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("reading pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	if pod.UID != "" && live.UID != pod.UID {
		return nil, fmt.Errorf("reading pod %s/%s: its UID is %s, not %s", pod.Namespace, pod.Name, live.UID, pod.UID)
	}
	return live, nil
}

// remove deletes the object of a pod that has ended: at once, and only this very pod.
func (k *Kubelet) remove(ctx context.Context, pod *corev1.Pod) error {
	now := int64(0)
	err := k.answered(ctx, func() error {
		return k.pods(pod).Delete(ctx, pod.Name, metav1.DeleteOptions{
			GracePeriodSeconds: &now,
			Preconditions:      &metav1.Preconditions{UID: &pod.UID},
		})
	})
	if err != nil {
		return fmt.Errorf("removing pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	return nil
}

// answered makes a request. Within Run it is made again until the API server answers it: an outage delays a kubelet,
// and nothing more.
func (k *Kubelet) answered(ctx context.Context, request func() error) error {
	err := request()
	for k.running && isOutage(err) {
		timer := time.NewTimer(outagePause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return err
		case <-timer.C:
			err = request()
		}
	}
	return err
}

// isOutage says that no answer came, or one that asks for another try.
func isOutage(err error) bool {
	if err == nil || errors.Is(err, context.Canceled) {
		return false
	}
	switch apierrors.ReasonForError(err) {
	case metav1.StatusReasonUnknown, metav1.StatusReasonServiceUnavailable, metav1.StatusReasonInternalError,
		metav1.StatusReasonTooManyRequests, metav1.StatusReasonTimeout, metav1.StatusReasonServerTimeout:
		return true
	}
	return false
}

func (k *Kubelet) pods(pod *corev1.Pod) typedcorev1.PodInterface {
	return k.client.CoreV1().Pods(pod.Namespace)
}

func (k *Kubelet) now() metav1.Time {
	return metav1.NewTime(k.options.Clock.Now())
}

// podIP is an address that is a pod's own, as far as 24 bits of its UID's hash go.
func podIP(pod *corev1.Pod) string {
	hash := fnv.New32a()
	_, _ = hash.Write([]byte(pod.UID)) // never fails
	sum := hash.Sum(nil)
	return fmt.Sprintf("10.%d.%d.%d", sum[1], sum[2], sum[3])
}
