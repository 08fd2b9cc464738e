package scenarios

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/airflow-requeue/airflow-requeue/internal/history"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// unfinished reports whether a pod is over and still carries what keeps it from Airflow, or from going.
func unfinished(p *corev1.Pod) bool {
	return requeue.Ended(p) && (slices.Contains(p.Finalizers, requeue.Finalizer) || requeue.Attached(p) && requeue.Held(p))
}

// left is what was broken in any chain, and which pods are unfinished.
func (i *installation) left() []string {
	lines := i.record.AllBroken()
	for _, p := range i.record.There() {
		if unfinished(p) {
			lines = append(lines, p.Name+" is over and not let go")
		}
	}
	return lines
}

// tell dumps what is known, for a case that failed.
func (s *stage) tell() {
	words := []string{"level=ERROR", "level=WARN", "panic"}
	for _, key := range s.tasks {
		words = append(words, key.TaskID+" ", key.TaskID+"-")
		var events strings.Builder
		for _, pod := range s.record.Ever(key) {
			for _, e := range s.events.On(pod) {
				fmt.Fprintf(&events, "Event on %s: %s\n", pod.Name, e)
			}
		}
		s.T.Log("\n" + events.String() + history.Story(s.record.Moments(), func(pod *corev1.Pod) bool { return requeue.SameTaskInstance(pod, key) }))
	}
	s.T.Log("the executor saw " + strings.Join(s.SawOf(s.tasks...), ", "))
	s.T.Log("\n" + s.log.About(words...))
}
