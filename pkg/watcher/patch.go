package watcher

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// patch is a JSON patch (RFC 6902) of one pod, guarded by the UID and resourceVersion that it was decided on: the API
// server answers 422 where the pod is no longer that one.
type patch struct {
	pod *corev1.Pod
	ops []operation
}

type operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value,omitempty"`
}

func newPatch(pod *corev1.Pod) *patch {
	p := &patch{pod: pod}
	p.add("test", "/metadata/uid", pod.UID)
	p.add("test", "/metadata/resourceVersion", pod.ResourceVersion)
	return p
}

func (p *patch) add(op, path string, value any) { p.ops = append(p.ops, operation{op, path, value}) }

// label sets a label; an empty value takes it off.
func (p *patch) label(key, value string) { p.entry("labels", p.pod.Labels, key, value) }

// annotate sets an annotation; an empty value takes it off.
func (p *patch) annotate(key, value string) { p.entry("annotations", p.pod.Annotations, key, value) }

// annotateAll sets several, in the order of their names so that a patch is the same each time.
func (p *patch) annotateAll(annotations map[string]string) {
	keys := make([]string, 0, len(annotations))
	for k := range annotations {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		p.annotate(k, annotations[k])
	}
}

func (p *patch) entry(field string, have map[string]string, key, value string) {
	path := "/metadata/" + field + "/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(key)
	_, present := have[key]
	switch {
	case value != "" && have == nil && !p.touches("/metadata/"+field):
		p.add("add", "/metadata/"+field, map[string]string{key: value})
	case value != "":
		p.add("add", path, value)
	case present:
		p.add("remove", path, nil)
	}
}

func (p *patch) touches(path string) bool {
	return slices.ContainsFunc(p.ops, func(o operation) bool { return o.Path == path })
}

// letGo takes off what keeps the pod ours: the finalizer and the tracked label.
func (p *patch) letGo() {
	p.label(requeue.LabelTracked, "")
	if i := slices.Index(p.pod.Finalizers, requeue.Finalizer); i >= 0 {
		path := fmt.Sprintf("/metadata/finalizers/%d", i)
		p.add("test", path, requeue.Finalizer)
		p.add("remove", path, nil)
	}
}

// ungate takes our scheduling gate off.
func (p *patch) ungate() {
	i := slices.IndexFunc(p.pod.Spec.SchedulingGates, func(g corev1.PodSchedulingGate) bool { return g.Name == requeue.SchedulingGate })
	if i >= 0 {
		path := fmt.Sprintf("/spec/schedulingGates/%d", i)
		p.add("test", path+"/name", requeue.SchedulingGate)
		p.add("remove", path, nil)
	}
}

func (p *patch) bytes() ([]byte, error) {
	raw, err := json.Marshal(p.ops)
	if err != nil {
		return nil, fmt.Errorf("encoding a patch: %w", err)
	}
	return raw, nil
}
