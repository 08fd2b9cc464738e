package mutate

import (
	"bytes"
	"encoding/json"
	"fmt"

	"gomodules.xyz/jsonpatch/v2"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// snapshot is the JSON of the only fields that Mark may change, in their places. A patch is made from the difference
// of two of them, and so can't touch another field: numbers would not survive ours, which reads 1e3 and writes 1000.
func snapshot(pod *unstructured.Unstructured) ([]byte, error) {
	parts := map[string]any{}
	for parent, names := range map[string][]string{
		"metadata": {"labels", "annotations", "finalizers"},
		"spec":     {"schedulingGates"},
	} {
		fields, ok := pod.Object[parent].(map[string]any)
		if !ok {
			continue
		}
		kept := map[string]any{}
		for _, name := range names {
			if v, ok := fields[name]; ok {
				kept[name] = v
			}
		}
		parts[parent] = kept
	}
	raw, err := json.Marshal(parts)
	if err != nil {
		return nil, fmt.Errorf("encoding what may be changed of the pod: %w", err)
	}
	return raw, nil
}

// noPatch is what the API server takes for no change; it refuses an empty patch that names its type.
func noPatch() []byte { return []byte("[]") }

func patch(before, after []byte) ([]byte, error) {
	if bytes.Equal(before, after) {
		return noPatch(), nil
	}
	operations, err := jsonpatch.CreatePatch(before, after)
	if err != nil {
		return nil, fmt.Errorf("making the patch: %w", err)
	}
	raw, err := json.Marshal(operations)
	if err != nil {
		return nil, fmt.Errorf("encoding the patch: %w", err)
	}
	return raw, nil
}
