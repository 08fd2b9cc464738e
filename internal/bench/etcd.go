package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/airflow-requeue/airflow-requeue/internal/world"
)

// etcd takes pods as the API server stores them, by etcd's JSON gateway. What needs thousands of pods at once, or has them
// all fail within a second, can't have them by the API server: it would take minutes to write them, and be busy with it.
type etcd struct{ url string }

// operations is how many puts one transaction may have (etcd, --max-txn-ops).
const operations = 128

type operation struct {
	RequestPut put `json:"requestPut"`
}

type put struct {
	Key   []byte `json:"key"`
	Value []byte `json:"value"`
}

// put writes pods in few transactions.
func (e etcd) put(t testing.TB, pods []*corev1.Pod) {
	t.Helper()
	for some := range slices.Chunk(pods, operations) {
		var ops []operation
		for _, pod := range some {
			ops = append(ops, operation{stored(t, pod)})
		}
		body, err := json.Marshal(map[string]any{"success": ops})
		require.NoError(t, err)
		require.NoError(t, e.post(t.Context(), "/v3/kv/txn", body))
	}
}

// change writes pods that are watched, each by itself, as fast as etcd takes them, and returns the seconds that it took.
func (e etcd) change(t testing.TB, pods []*corev1.Pod) float64 {
	t.Helper()
	bodies := make([][]byte, len(pods)) // encoded before the first is sent: all are to change at about the same time
	for k, pod := range pods {
		body, err := json.Marshal(stored(t, pod))
		require.NoError(t, err)
		bodies[k] = body
	}
	errs := make([]error, len(pods))
	began := time.Now()
	concurrently(16, len(bodies), func(_, k int) { errs[k] = e.post(t.Context(), "/v3/kv/put", bodies[k]) })
	took := time.Since(began).Seconds()
	require.NoError(t, errors.Join(errs...))
	return took
}

// stored is a pod as the API server stores it.
func stored(t testing.TB, pod *corev1.Pod) put {
	t.Helper()
	pod = pod.DeepCopy()
	pod.ResourceVersion = "" // etcd's own
	pod.APIVersion, pod.Kind = "v1", "Pod"
	var value bytes.Buffer
	require.NoError(t, protobuf.NewSerializer(scheme.Scheme, scheme.Scheme).Encode(pod, &value))
	return put{[]byte("/registry/pods/" + pod.Namespace + "/" + pod.Name), value.Bytes()}
}

// forget removes all keys that begin so.
func (e etcd) forget(t testing.TB, prefixes ...string) {
	t.Helper()
	for _, prefix := range prefixes {
		end := []byte(prefix)
		end[len(end)-1]++
		body, err := json.Marshal(map[string][]byte{"key": []byte(prefix), "range_end": end})
		require.NoError(t, err)
		require.NoError(t, e.post(context.WithoutCancel(t.Context()), "/v3/kv/deleterange", body)) // at the very end, too
	}
}

// post asks until etcd has the time: what it is asked for may be asked for again.
func (e etcd) post(ctx context.Context, path string, body []byte) error {
	for began := time.Now(); ; {
		code, err := e.try(ctx, path, body)
		if code != http.StatusServiceUnavailable || time.Since(began) > world.Patience {
			return err
		}
		time.Sleep(time.Second)
	}
}

func (e etcd) try(ctx context.Context, path string, body []byte) (code int, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, e.url+path, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("etcd answers %s: %.200s", response.Status, answer)
	}
	return response.StatusCode, err
}
