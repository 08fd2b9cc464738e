package kubelet

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"

	"github.com/airflow-requeue/airflow-requeue/internal/controlplane"
)

// finalizer stands for the one of airflow-requeue: it keeps a deleted pod to be looked at.
const finalizer = "kubelet.test/keep"

// TestOnAnAPIServer runs all that needs a real API server, on one.
func TestOnAnAPIServer(t *testing.T) {
	server, err := controlplane.Start(t.Context(), controlplane.Options{Progress: t.Output()})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, server.Stop()) })
	client, err := kubernetes.NewForConfig(server.Config())
	require.NoError(t, err)

	t.Run("by hand", func(t *testing.T) { testByHand(t, client) })
	t.Run("by itself", func(t *testing.T) { testRun(t, client) })
	t.Run("nodes", func(t *testing.T) { testNodes(t, client) })
	t.Run("an outage of the API server is waited out", func(t *testing.T) { testOutage(t, client, server) })
}

// world is a namespace of its own on the API server.
type world struct {
	*testing.T
	client    kubernetes.Interface
	namespace string
}

func newWorld(t *testing.T, client kubernetes.Interface) *world {
	t.Helper()
	namespace, err := client.CoreV1().Namespaces().Create(t.Context(),
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "kubelet-"}}, metav1.CreateOptions{})
	require.NoError(t, err)
	return &world{T: t, client: client, namespace: namespace.Name}
}

// pod creates a pod with the finalizer, and one container unless change adds to it.
func (w *world) pod(name string, change func(*corev1.Pod)) *corev1.Pod {
	w.Helper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Finalizers: []string{finalizer}},
		Spec: corev1.PodSpec{
			RestartPolicy: corev1.RestartPolicyNever,
			Containers:    []corev1.Container{{Name: "base", Image: "apache/airflow"}},
		},
	}
	if change != nil {
		change(pod)
	}
	created, err := w.client.CoreV1().Pods(w.namespace).Create(w.Context(), pod, metav1.CreateOptions{})
	require.NoError(w, err)
	return created
}

func (w *world) read(pod *corev1.Pod) *corev1.Pod {
	w.Helper()
	live, err := w.client.CoreV1().Pods(w.namespace).Get(w.Context(), pod.Name, metav1.GetOptions{})
	require.NoError(w, err)
	return live
}

// delete asks for a deletion; grace is in seconds, nil the pod's own.
func (w *world) delete(pod *corev1.Pod, grace *int64) {
	w.Helper()
	err := w.client.CoreV1().Pods(w.namespace).Delete(w.Context(), pod.Name, metav1.DeleteOptions{GracePeriodSeconds: grace})
	require.NoError(w, err)
}

func (w *world) release(pod *corev1.Pod) {
	w.Helper()
	w.patch(pod, `{"metadata":{"finalizers":null}}`)
}

func (w *world) patch(pod *corev1.Pod, patch string) {
	w.Helper()
	_, err := w.client.CoreV1().Pods(w.namespace).Patch(w.Context(), pod.Name, types.MergePatchType, []byte(patch),
		metav1.PatchOptions{})
	require.NoError(w, err)
}

// watch opens a watch on a pod from the version that is given.
func (w *world) watch(pod *corev1.Pod) watch.Interface {
	w.Helper()
	events, err := w.client.CoreV1().Pods(w.namespace).Watch(w.Context(), metav1.ListOptions{
		FieldSelector:   fields.OneTermEqualSelector("metadata.name", pod.Name).String(),
		ResourceVersion: pod.ResourceVersion,
	})
	require.NoError(w, err)
	w.Cleanup(events.Stop)
	return events
}

// seen is what a watch sees of a pod from the version that is given to now.
func (w *world) seen(from *corev1.Pod) []string {
	w.Helper()
	events := w.watch(from)
	w.patch(from, `{"metadata":{"annotations":{"the-end":""}}}`)
	var lines []string
	for event := range events.ResultChan() {
		pod, ok := event.Object.(*corev1.Pod)
		require.True(w, ok, "%v", event.Object)
		if _, end := pod.Annotations["the-end"]; end {
			return lines
		}
		lines = append(lines, describe(event.Type, pod))
	}
	require.Fail(w, "the watch has ended")
	return nil
}

// await returns the pod once it is as it should be.
func (w *world) await(from *corev1.Pod, what string, is func(watch.EventType, *corev1.Pod) bool) *corev1.Pod {
	w.Helper()
	ctx, cancel := context.WithTimeoutCause(w.Context(), patience, fmt.Errorf("pod %s: not %s", from.Name, what))
	defer cancel()
	events := w.watch(from)
	for {
		select {
		case <-ctx.Done():
			require.NoError(w, context.Cause(ctx))
		case event, open := <-events.ResultChan():
			require.True(w, open, "the watch has ended")
			pod, ok := event.Object.(*corev1.Pod)
			require.True(w, ok, "%v", event.Object)
			if is(event.Type, pod) {
				return pod
			}
		}
	}
}

// describe is an event in one line: type, phase, deletion, disruption and each container's state.
func describe(kind watch.EventType, pod *corev1.Pod) string {
	words := []string{string(kind), string(pod.Status.Phase)}
	if pod.Status.Reason != "" {
		words = append(words, "("+pod.Status.Reason+")")
	}
	if pod.DeletionTimestamp != nil {
		words = append(words, fmt.Sprintf("deleting in %ds", *pod.DeletionGracePeriodSeconds))
	}
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.DisruptionTarget {
			words = append(words, fmt.Sprintf("disrupted %s %s", condition.Status, condition.Reason))
		}
	}
	for _, statuses := range [][]corev1.ContainerStatus{pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses} {
		for _, status := range statuses {
			words = append(words, status.Name+": "+describeState(status.State))
		}
	}
	return strings.Join(words, ", ")
}

func describeState(state corev1.ContainerState) string {
	switch {
	case state.Terminated != nil:
		return fmt.Sprintf("%s %d", state.Terminated.Reason, state.Terminated.ExitCode)
	case state.Running != nil:
		return "running"
	case state.Waiting != nil:
		return state.Waiting.Reason
	}
	return "nothing"
}
