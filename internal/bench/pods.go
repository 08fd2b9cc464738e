package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/airflow-requeue/airflow-requeue/internal/executor"
	"github.com/airflow-requeue/airflow-requeue/internal/kubelet"
	"github.com/airflow-requeue/airflow-requeue/internal/world"
)

// tasks are n task instances that are queued now.
func tasks(n int) []executor.Task {
	now := time.Now().UTC().Truncate(time.Microsecond)
	all := make([]executor.Task, n)
	for k := range all {
		all[k] = executor.NewTask("daily_sales_report", fmt.Sprintf("transform_partition_%06d", k), "scheduled__2026-11-30T00:00:00+00:00", now)
		all[k].TokenLifetime = 2 * time.Hour // however slow the machine is
	}
	return all
}

// sized makes a task's pod so large, in bytes of JSON, as one with many settings is. What it is filled with can be
// compressed about as well as pods can.
func sized(task executor.Task, size int) executor.Task {
	task.Mutate = func(pod *corev1.Pod) {
		base := &pod.Spec.Containers[0]
		small, _ := json.Marshal(pod) //nolint:errchkjson // no type of a pod fails to encode
		for n, missing := 0, size-len(small); missing > 0; n++ {
			e := corev1.EnvVar{Name: fmt.Sprintf("AIRFLOW_VAR_PARTITION_%04d_LOCATION", n),
				Value: fmt.Sprintf("s3://warehouse-%s/daily/sales/region=%02d/part-%05d.snappy.parquet", uuid.NewString(), n%17, n)}
			base.Env = append(base.Env, e)
			missing -= len(e.Name) + len(e.Value) + len(`{"name":"","value":""},`)
		}
	}
	return task
}

// moulds are a worker pod of each state as the API server stores it, once it was written by all who write pods.
type moulds struct{ created, failed, running *corev1.Pod }

// mould makes them, in a namespace that nobody watches.
func (s *stage) mould() moulds {
	s.Helper()
	var m moulds
	s.with(func(i *site) {
		ctx, kubelets := i.t.Context(), kubelet.New(s.client, kubelet.Options{Namespace: i.Namespace})
		cast := func(state func(*corev1.Pod) (*corev1.Pod, error)) *corev1.Pod {
			pod, err := kubelets.Bind(ctx, i.Submit(tasks(1)[0]), "node")
			require.NoError(i.t, err)
			pod, err = kubelets.Create(ctx, pod)
			require.NoError(i.t, err)
			pod, err = state(pod)
			require.NoError(i.t, err)
			return pod
		}
		m.created = cast(func(pod *corev1.Pod) (*corev1.Pod, error) { return pod, nil })
		m.running = cast(func(pod *corev1.Pod) (*corev1.Pod, error) { return kubelets.Start(ctx, pod) })
		m.failed = cast(func(pod *corev1.Pod) (*corev1.Pod, error) { return evicted(ctx, kubelets, pod) })
	})
	return m
}

// evicted has a pod fail before its task began, in one write of its kubelet.
func evicted(ctx context.Context, kubelets *kubelet.Kubelet, pod *corev1.Pod) (*corev1.Pod, error) {
	return kubelets.NodePressure(ctx, pod, "The node was low on resource: memory. Threshold quantity: 100Mi, available: 52Mi.")
}

// cast are the pods of task instances in the state of a mould, with stamps of their own. The same tasks give the same pods.
func (i *site) cast(mould *corev1.Pod, of []executor.Task) []*corev1.Pod {
	i.t.Helper()
	pods := make([]*corev1.Pod, len(of))
	var failed atomic.Value
	concurrently(2, len(of), func(_, k int) {
		stamped, err := world.Stamped(i.Sealer, world.Installation, i.Namespace, of[k])
		if err != nil {
			failed.Store(err)
			return
		}
		pod := mould.DeepCopy()
		pod.Namespace, pod.Name, pod.Labels, pod.Annotations = i.Namespace, stamped.Name, stamped.Labels, stamped.Annotations
		pod.UID = types.UID(uuid.NewSHA1(uuid.NameSpaceOID, []byte(i.Namespace+of[k].TokenID)).String())
		pod.CreationTimestamp = metav1.NewTime(of[k].QueuedAt.Add(time.Second).Truncate(time.Second))
		pod.Spec.Containers[0].Args = stamped.Spec.Containers[0].Args
		pods[k] = pod
	})
	if err, ok := failed.Load().(error); ok {
		require.NoError(i.t, err)
	}
	return pods
}

// chain is the name of the first pod of the chain that a pod is of.
func chain(pod *corev1.Pod) string {
	return strings.TrimSuffix(pod.Name, "-r1")
}

// put writes pods that nobody watches yet, and returns when the API server knows of them all. What it reads of one transaction has one
// version: who lists it in the middle of that, and watches from there, misses the rest. The last pod is in one of its own.
func (i *site) put(pods []*corev1.Pod) {
	i.t.Helper()
	if len(pods) == 0 {
		return
	}
	last := pods[len(pods)-1]
	i.etcd.put(i.t, pods[:len(pods)-1])
	i.etcd.put(i.t, []*corev1.Pod{last})
	i.until("the API server knows of the pods", func() bool {
		_, err := i.client.CoreV1().Pods(i.Namespace).Get(i.t.Context(), last.Name, metav1.GetOptions{ResourceVersion: "0"}) // of what it has read
		return err == nil
	})
}
