package faults

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/airflow-requeue/airflow-requeue/internal/world"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// Instead of a watcher a careless hand reports a pod that failed. What is wrong with it shows, each time, in the end or in
// the promises that were broken; and nothing shows of one that is right.
func TestASweepNoticesWhatIsWrong(t *testing.T) {
	const right = "pod Failed worker=1 node=node-a\nthe executor saw failed pod\nreplacements of each replaced pod: []"
	lift := fmt.Sprintf(`{"metadata":{"labels":{%q:null,%q:null},"finalizers":null}}`, requeue.LabelHold, requeue.LabelTracked)
	for _, tt := range []struct {
		name     string
		careless func(*play)
		notice   string
	}{
		{"nothing is wrong", func(p *play) { p.patch(lift) }, ""},
		{"the hold is left", func(p *play) {
			p.patch(fmt.Sprintf(`{"metadata":{"labels":{%q:null},"finalizers":null}}`, requeue.LabelTracked))
		}, "pod Failed worker=1 held node=node-a\nreplacements of each replaced pod: []"},
		{"the finalizer is left", func(p *play) {
			p.patch(fmt.Sprintf(`{"metadata":{"labels":{%q:null,%q:null}}}`, requeue.LabelHold, requeue.LabelTracked))
		}, "finalizers=airflow-requeue.dev/hold"},
		{"the report is lost", func(p *play) {
			p.patch(fmt.Sprintf(`{"metadata":{"labels":{%q:null}}}`, requeue.LabelWorker))
			p.patch(lift)
		}, "pod Failed node=node-a"},
		{"the last event of a deleted pod carries the hold", func(p *play) {
			p.must(nil, p.Scheduler.Delete(p.t.Context(), p.name))
			p.patch(lift)
		}, "replacements of each replaced pod: []"},
		{"a replacement is attached beside it", func(p *play) {
			p.submitReplacement("-r1", map[string]string{requeue.LabelWorker: "1"})
			p.patch(lift)
		}, "two pods of a chain carry airflow-worker: [pod pod-r1]"},
		{"it has two replacements", func(p *play) {
			p.submitReplacement("-r1", nil)
			p.submitReplacement("-r1-0123abcd", nil)
			p.patch(lift)
		}, "one pod has two replacements: [pod-r1 pod-r1-0123abcd]"},
		{"it had two replacements, one after the other", func(p *play) {
			for range 2 {
				p.submitReplacement("-r1", nil)
				p.must(nil, p.Client.CoreV1().Pods(p.Namespace).Delete(p.t.Context(), p.name+"-r1", metav1.DeleteOptions{}))
			}
			p.patch(lift)
		}, "replacements of each replaced pod: [2]"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newStage(t)
			p := s.play(t, "planted", outcome{play: func(p *play) {
				_, err := p.Kubelet.Fail(t.Context(), p.started(p.pod))
				require.NoError(t, err)
				tt.careless(p)
			}}, nil)
			s.caughtUp(t, "marker")
			seen := strings.ReplaceAll(strings.Join(slices.Concat([]string{p.end()}, s.record.Broken(p.name)), "\n"), p.name, "pod")
			if tt.notice == "" {
				assert.Equal(t, right, seen)
				return
			}
			assert.NotEqual(t, right, seen)
			assert.Contains(t, seen, tt.notice)
		})
	}
}

// patch changes the first pod as nobody guards it.
func (p *play) patch(patch string) {
	p.t.Helper()
	_, err := p.Client.CoreV1().Pods(p.Namespace).Patch(p.t.Context(), p.name, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	require.NoError(p.t, err)
}

// submitReplacement creates what claims to replace the first pod.
func (p *play) submitReplacement(end string, labels map[string]string) {
	p.t.Helper()
	_, err := p.Client.CoreV1().Pods(p.Namespace).Create(p.t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: p.name + end, Labels: labels, Annotations: map[string]string{
			requeue.AnnotationOrigin: p.name, requeue.AnnotationRequeueOf: string(p.pod.UID),
			"dag_id": "dag", "task_id": p.name, "run_id": "manual__1", "try_number": "1"}},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "base", Image: "task"}}},
	}, metav1.CreateOptions{})
	require.NoError(p.t, err)
}

// A pod that stays tracked is not done with, whatever else is right.
func TestASweepWaitsForWhatIsTracked(t *testing.T) {
	s := newStage(t)
	task := s.Queue("tracked")
	s.Submit(task)
	require.Eventually(t, func() bool { return len(s.record.Pods("dag-tracked-"+task.Suffix)) == 1 }, world.Patience, world.Patience/600)
	p := &play{stage: s, t: t, name: "dag-tracked-" + task.Suffix}
	assert.False(t, p.isOver(outcome{}))
	assert.False(t, p.isOver(outcome{replacementLives: true}))
}
