package requeue

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

func TestUnstampLeavesNothingOfOursOnAPodTheAPIServerWouldRefuse(t *testing.T) {
	pod := unstructuredPod(map[string]any{
		"labels":     map[string]any{LabelHold: HoldValue, LabelTracked: "airflow-requeue", "number": int64(1)},
		"finalizers": []any{Finalizer, int64(1)},
	})

	assert.True(t, Unstamp(pod))

	assert.Equal(t, unstructuredPod(map[string]any{
		"labels":     map[string]any{"number": int64(1)},
		"finalizers": []any{int64(1)},
	}), pod)
}

func TestUnstampKeepsAirflowsRevocation(t *testing.T) {
	pod := unstructuredPod(map[string]any{"labels": map[string]any{LabelHold: "True"}})

	assert.False(t, Unstamp(pod))

	assert.Equal(t, unstructuredPod(map[string]any{"labels": map[string]any{LabelHold: "True"}}), pod)
}

func TestJobSpecIsTheSameBeforeAndAfterStamping(t *testing.T) {
	sealer, err := NewSealer(func() Keys {
		return Keys{Current: "k", Secrets: map[string][]byte{"k": make([]byte, MinKeyBytes)}}
	})
	require.NoError(t, err)
	for name, metadata := range map[string]map[string]any{
		"nothing there":    {},
		"empty from start": {"labels": map[string]any{}, "annotations": map[string]any{}, "finalizers": []any{}},
		"others there": {"labels": map[string]any{"a": "b"}, "annotations": map[string]any{"a": "b"},
			"finalizers": []any{"a.example/b"}},
	} {
		t.Run(name, func(t *testing.T) {
			pod := unstructuredPod(metadata)
			before, err := JobSpec(pod)
			require.NoError(t, err)
			require.NoError(t, sealer.Stamp(pod, "airflow-requeue", "airflow", before))

			require.True(t, Unstamp(pod))
			after, err := JobSpec(pod)

			require.NoError(t, err)
			assert.JSONEq(t, string(before), string(after))
		})
	}
}

func unstructuredPod(metadata map[string]any) *unstructured.Unstructured {
	metadata["name"] = "pod"
	return &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Pod", "metadata": metadata}}
}
