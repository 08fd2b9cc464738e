package bench

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// replaced checks what has become of n pods that failed: as many replacements, each of another one, that may run and are
// attached; and nothing of ours left on those that failed.
func (i *site) replaced(n int) {
	i.t.Helper()
	var wrong []string
	i.until(fmt.Sprintf("%d pods are replaced", n), func() bool {
		list, err := i.client.CoreV1().Pods(i.Namespace).List(i.t.Context(), metav1.ListOptions{ResourceVersion: "0"})
		require.NoError(i.t, err)
		wrong = wrongs(list.Items, n)
		return len(wrong) == 0
	})
	require.Empty(i.t, wrong)
}

// wrongs says what is not as it should be once n pods were replaced.
func wrongs(pods []corev1.Pod, n int) []string {
	counts := map[string]int{}
	replacedBy := map[string]int{}
	for k := range pods {
		pod := &pods[k]
		_, attached := pod.Labels[requeue.LabelWorker]
		predecessor := requeue.RequeueOf(pod)
		switch {
		case predecessor != "":
			replacedBy[predecessor]++
			counts["replacements"]++
			if requeue.Gated(pod) || !attached || !requeue.Held(pod) {
				counts["replacements that may not run"]++
			}
		case attached || requeue.Tracked(pod) || slices.Contains(pod.Finalizers, requeue.Finalizer):
			counts["failed pods that are attached or tracked"]++
		}
	}
	for k := range pods {
		if requeue.RequeueOf(&pods[k]) == "" && replacedBy[string(pods[k].UID)] != 1 {
			counts["failed pods without one replacement"]++
		}
	}
	counts["pods"] = len(pods)
	want := map[string]int{"pods": 2 * n, "replacements": n}
	if maps.Equal(counts, want) {
		return nil
	}
	return []string{strings.TrimPrefix(fmt.Sprint(counts), "map")}
}
