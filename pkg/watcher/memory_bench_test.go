package watcher

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"github.com/airflow-requeue/airflow-requeue/internal/executor"
	"github.com/airflow-requeue/airflow-requeue/internal/world"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// BenchmarkTrackedPod is what a pod takes of the informer's store, in bytes that stay.
func BenchmarkTrackedPod(b *testing.B) {
	const n = 5000
	keys := requeue.Keys{Current: "k1", Secrets: map[string][]byte{"k1": []byte("a secret of the tests, 32 bytes or more")}}
	sealer, err := requeue.NewSealer(func() requeue.Keys { return keys })
	require.NoError(b, err)
	raw := make([][]byte, n)
	for k := range raw {
		task := executor.NewTask("daily_sales_report", fmt.Sprintf("transform_partition_%06d", k), "scheduled__2026-11-30T00:00:00+00:00", time.Now())
		pod, err := world.Stamped(sealer, "airflow-requeue", "airflow", task)
		require.NoError(b, err)
		pod.UID, pod.ResourceVersion, pod.Spec.NodeName = types.UID(task.ID), fmt.Sprint(k), "node"
		pod.CreationTimestamp = metav1.Now()
		pod.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "airflow", Operation: "Update", FieldsV1: metav1.NewFieldsV1(strings.Repeat("x", 2000))}}
		pod.Status = corev1.PodStatus{Phase: corev1.PodPending, ContainerStatuses: []corev1.ContainerStatus{{Name: "base", Image: "apache/airflow",
			State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ContainerCreating"}}}}}
		raw[k], err = pod.Marshal()
		require.NoError(b, err)
	}
	for b.Loop() {
		before := heap()
		store := cache.NewStore(cache.MetaNamespaceKeyFunc)
		transform := slim(sealer, store)
		for _, of := range raw {
			pod := &corev1.Pod{}
			require.NoError(b, pod.Unmarshal(of))
			held, err := transform(pod)
			require.NoError(b, err)
			require.NoError(b, store.Add(held))
		}
		b.ReportMetric(float64(heap()-before)/n, "B/pod")
		runtime.KeepAlive(store)
	}
}

func heap() uint64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}
