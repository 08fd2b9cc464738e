package world

import (
	"slices"
	"strings"

	"github.com/airflow-requeue/airflow-requeue/internal/executor"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// SawOf returns what the executors would have put in their queues of some task instances' pods, as "state pod", each
// once.
func (w *World) SawOf(keys ...requeue.Key) []string {
	return w.saw(func(s executor.Seen) bool { return slices.Contains(keys, s.Key) })
}

// SawOfChain is SawOf for a pod that Airflow made and its replacements, in the order of their names.
func (w *World) SawOfChain(chain string) []string {
	saw := w.saw(func(s executor.Seen) bool { return strings.HasPrefix(s.Pod.Name+"-", chain+"-") })
	slices.Sort(saw)
	return saw
}

func (w *World) saw(which func(executor.Seen) bool) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	saw := []string{}
	for _, s := range w.seen {
		if line := string(s.State) + " " + s.Pod.Name; which(s) && !slices.Contains(saw, line) {
			saw = append(saw, line)
		}
	}
	return saw
}
