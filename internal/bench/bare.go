package bench

import (
	"errors"
	"fmt"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/airflow-requeue/airflow-requeue/internal/executor"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// bare makes the requests of n replacements and nothing else, as many at a time as the watcher does: no webhook, no watch, no
// query, no decision. That is what this API server can do. events are so many for each pod.
func (i *site) bare(m moulds, n int, events float64) {
	i.t.Helper()
	queued := tasks(n)
	i.put(i.cast(m.created, queued))
	pods := i.cast(m.failed, queued)
	failing := i.etcd.change(i.t, pods)
	list, err := i.client.CoreV1().Pods(i.Namespace).List(i.t.Context(), metav1.ListOptions{})
	require.NoError(i.t, err)
	require.Len(i.t, list.Items, n)
	byName := map[string]executor.Task{}
	for k, pod := range pods {
		byName[pod.Name] = queued[k]
	}
	replacements := make([][]byte, n)
	for k := range list.Items {
		pod := &list.Items[k]
		next := requeue.Next{Attempt: 1, QueuedAt: byName[pod.Name].QueuedAt, NotBefore: time.Now(), AvoidNode: pod.Spec.NodeName}
		replacements[k], err = i.Sealer.Replacement(pod, next, requeue.ReplacementName(pod, next, false))
		require.NoError(i.t, err)
	}
	client := i.as(i.WatcherUser())
	errs := make([]error, n)
	var took float64
	began := time.Now()
	i.profiled(fmt.Sprintf("bare-%d", n), nil, func() {
		concurrently(min(workers, n), n, func(_, k int) {
			errs[k] = i.requeueBare(client, &list.Items[k], replacements[k], int(float64(k+1)*events)-int(float64(k)*events))
		})
		took = failing + time.Since(began).Seconds()
	})
	for _, err := range errs {
		require.NoError(i.t, err)
	}
	i.replaced(n)
	i.report.series("storm.rate", "pods/s", "who", none, "pods", n).add(float64(n) / took)
}

// requeueBare is the requests of one replacement, in their order, and so many Events.
func (i *site) requeueBare(client kubernetes.Interface, old *corev1.Pod, replacement []byte, events int) error {
	ctx, pods := i.t.Context(), client.CoreV1().Pods(i.Namespace)
	patch := func(pod *corev1.Pod, format string, args ...any) (*corev1.Pod, error) {
		guard := fmt.Sprintf(`[{"op":"test","path":"/metadata/uid","value":%q},{"op":"test","path":"/metadata/resourceVersion","value":%q},`,
			pod.UID, pod.ResourceVersion)
		return pods.Patch(ctx, pod.Name, types.JSONPatchType, []byte(guard+fmt.Sprintf(format, args...)+"]"), metav1.PatchOptions{FieldManager: "bare"})
	}
	const annotation = "/metadata/annotations/airflow-requeue.dev~1"
	pod, err := patch(old, `{"op":"remove","path":"/metadata/labels/airflow-worker"},{"op":"add","path":"/metadata/labels/airflow_executor_done","value":"True"},`+
		`{"op":"add","path":"%sdetached-airflow-worker","value":"1"},{"op":"add","path":"%sreason","value":"Evicted"},{"op":"add","path":"%smessage","value":%q}`,
		annotation, annotation, annotation, old.Status.Message)
	if err != nil {
		return err
	}
	created := &corev1.Pod{}
	err = client.CoreV1().RESTClient().Post().Namespace(i.Namespace).Resource("pods").Param("fieldManager", "bare").
		SetHeader("Content-Type", "application/json").Body(replacement).Do(ctx).Into(created)
	if err != nil {
		return err
	}
	if pod, err = pods.Get(ctx, pod.Name, metav1.GetOptions{}); err != nil {
		return err
	}
	created, err = patch(created, `{"op":"add","path":"%scommitted","value":"true"},{"op":"add","path":"/metadata/labels/airflow-worker","value":"1"}`, annotation)
	if err != nil {
		return err
	}
	_, err = patch(pod, `{"op":"add","path":"%sreplaced-at","value":"2026-11-30T00:00:00Z"},{"op":"add","path":"/metadata/labels/airflow-requeue.dev~1replaced","value":"airflow-requeue"},`+
		`{"op":"remove","path":"/metadata/labels/airflow-requeue.dev~1tracked"},{"op":"remove","path":"/metadata/finalizers/0"}`, annotation)
	if err != nil {
		return err
	}
	if _, err = patch(created, `{"op":"remove","path":"/spec/schedulingGates/0"}`); err != nil {
		return err
	}
	errs := make([]error, events)
	concurrently(events, events, func(_, k int) { errs[k] = i.event(client, []*corev1.Pod{old, created}[k%2], k) })
	return errors.Join(errs...)
}

// event is what the watcher tells of a replacement.
func (i *site) event(client kubernetes.Interface, pod *corev1.Pod, k int) error {
	_, err := client.EventsV1().Events(i.Namespace).Create(i.t.Context(), &eventsv1.Event{
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("%s.%s.%d", pod.Name, pod.UID, k), Namespace: i.Namespace}, EventTime: metav1.NowMicro(),
		ReportingController: "bare", ReportingInstance: "bare", Action: "Requeue", Reason: "Evicted", Type: corev1.EventTypeNormal,
		Regarding: corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID},
		Note:      "Replaced by " + pod.Name + "-r1: " + pod.Status.Message,
	}, metav1.CreateOptions{})
	return err
}
