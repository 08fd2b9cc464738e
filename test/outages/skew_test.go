package outages

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/airflow-requeue/airflow-requeue/internal/executor"
	"github.com/airflow-requeue/airflow-requeue/internal/programs"
)

// Airflow's clock writes queued_dttm and the token's times. Airflow 3 has both, so that what it wrote is compared with
// itself. Airflow 2 has no token: a queueing that seems to be younger than its pod by more than --clock-skew may be a
// later one, and its pod is not replaced but reported, once no pod of a later queueing has come for 30 s.
func TestAnAirflowWhoseClockIsFiveMinutesOffLosesAndDoublesNothing(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name     string
		airflow  executor.Airflow
		off      time.Duration
		flags    []string
		reported bool
	}{
		{name: "Airflow 3, ahead", airflow: executor.Airflow3, off: 5 * time.Minute},
		{name: "Airflow 3, behind", airflow: executor.Airflow3, off: -5 * time.Minute},
		{name: "Airflow 2, ahead", airflow: executor.Airflow2, off: 5 * time.Minute, reported: true},
		{name: "Airflow 2, ahead, and --clock-skew says so", airflow: executor.Airflow2, off: 5 * time.Minute, flags: []string{"--clock-skew=6m"}},
		{name: "Airflow 2, behind", airflow: executor.Airflow2, off: -5 * time.Minute},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, shared.Servers)
			s.queueing = func(task executor.Task) executor.Task {
				task.Airflow = tt.airflow
				return task.Again(task.QueuedAt.Add(tt.off))
			}
			watcher := s.startWatcher(s.watcherConfig(), append(programs.Steady(), tt.flags...)...)
			s.startWebhook(tt.flags...)
			s.untilHolding()
			for _, f := range append(replaceable(), runs, broken) {
				s.submit(f)
			}
			s.settles()
			requeues := watcher.metric("airflow_requeue_requeues_total")
			notQueued := watcher.metric("airflow_requeue_outcomes_total", `outcome="report"`, `reason="NotQueued"`)
			if tt.reported {
				assert.Zero(t, requeues)
				assert.InDelta(t, len(replaceable())+1, notQueued, 0, "those that were taken, and the one that broke")
				assert.Equal(t, len(replaceable()), s.count(func(e *entry) bool { return took(e) && len(e.failed) == 1 }))
			} else {
				assert.InDelta(t, len(replaceable()), requeues, 0)
				assert.Zero(t, notQueued)
				s.unseen(took)
			}
			watcher.sparing()
		})
	}
}
