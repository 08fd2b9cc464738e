package world

import (
	"fmt"
	"slices"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// SawOf returns what the executors would have put in their queues of some task instances' pods, as "state pod", each
// once: the part of Saw that is theirs.
func (w *World) SawOf(keys ...requeue.Key) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	saw := []string{}
	for _, s := range w.seen {
		if line := fmt.Sprintf("%s %s", s.State, s.Pod.Name); slices.Contains(keys, s.Key) && !slices.Contains(saw, line) {
			saw = append(saw, line)
		}
	}
	return saw
}
