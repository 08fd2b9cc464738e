package watcher

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

func TestAPatchIsGuardedAndTouchesOnlyWhatIsThere(t *testing.T) {
	t.Parallel()
	guard := `{"op":"test","path":"/metadata/uid","value":"u"},{"op":"test","path":"/metadata/resourceVersion","value":"7"}`
	pod := func(change func(*corev1.Pod)) *corev1.Pod {
		p := podAt("u", "7")
		change(p)
		return p
	}
	for _, tt := range []struct {
		name   string
		pod    *corev1.Pod
		change func(*patch)
		want   string
	}{
		{"the first labels of a pod make the map", pod(func(*corev1.Pod) {}), func(p *patch) {
			p.label("a", "1")
			p.label("b/c", "2")
		}, `,{"op":"add","path":"/metadata/labels","value":{"a":"1"}},{"op":"add","path":"/metadata/labels/b~1c","value":"2"}`},
		{"what is not there is not removed", pod(func(p *corev1.Pod) { p.Labels = map[string]string{"a": "1"} }), func(p *patch) {
			p.label("a", "")
			p.label("b", "")
			p.annotate("c", "")
		}, `,{"op":"remove","path":"/metadata/labels/a"}`},
		{"a name with a slash and a tilde is escaped", pod(func(p *corev1.Pod) { p.Annotations = map[string]string{} }),
			func(p *patch) { p.annotate("x/y~z", "1") }, `,{"op":"add","path":"/metadata/annotations/x~1y~0z","value":"1"}`},
		{"only our finalizer goes, where it stands", pod(func(p *corev1.Pod) {
			p.Labels = map[string]string{requeue.LabelTracked: "prod"}
			p.Finalizers = []string{"other/finalizer", requeue.Finalizer}
		}), (*patch).letGo, `,{"op":"remove","path":"/metadata/labels/airflow-requeue.dev~1tracked"},` +
			`{"op":"test","path":"/metadata/finalizers/1","value":"airflow-requeue.dev/hold"},{"op":"remove","path":"/metadata/finalizers/1"}`},
		{"only our gate goes, where it stands", pod(func(p *corev1.Pod) {
			p.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "other/gate"}, {Name: requeue.SchedulingGate}}
		}), (*patch).ungate, `,{"op":"test","path":"/spec/schedulingGates/1/name","value":"airflow-requeue.dev/hold"},` +
			`{"op":"remove","path":"/spec/schedulingGates/1"}`},
		{"a pod that is let go twice loses nothing more", pod(func(*corev1.Pod) {}), (*patch).letGo, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := newPatch(tt.pod)
			tt.change(p)
			raw, err := p.bytes()
			require.NoError(t, err)
			require.JSONEq(t, "["+guard+tt.want+"]", string(raw))
		})
	}
}
