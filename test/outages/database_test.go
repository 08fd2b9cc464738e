package outages

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/airflow-requeue/airflow-requeue/internal/programs"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

func TestADatabaseThatIsGoneForAMinuteCostsThePodsOfThatMinuteAndNoOther(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		outage func(*line)
	}{
		{"connections are refused", (*line).cut},
		{"connections are taken and nothing is answered", (*line).swallow},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			db, port := newPostgreSQL(t)
			line := newLine(t, fmt.Sprintf("127.0.0.1:%d", port))
			s := newSite(t, shared.Servers)
			s.load.rows, s.DatabaseURL = db, readerURL(line.address)
			watcher, webhook := s.startWatcher(s.watcherConfig(), programs.Steady()...), s.startWebhook()
			s.untilHolding()
			stop := s.work(time.Second/3, day()...)
			s.untilReplaced(time.Time{})
			assert.Positive(t, watcher.metric("airflow_requeue_requeues_total"))
			assert.InDelta(t, 1, watcher.metric("airflow_requeue_database_readable"), 0)

			reported := func() float64 {
				return watcher.metric("airflow_requeue_outcomes_total", `outcome="report"`, `reason="DatabaseUnavailable"`)
			}
			watcher.anew()
			webhook.anew()
			_, held := s.submit(evicted) // it ends in a moment: whatever else is under way, this one the outage costs
			require.True(t, held)
			tt.outage(line)
			began := time.Now()
			until(t, "the watcher says that it can't decide", func() bool { return s.ready() == "false" })
			until(t, "the webhook holds nothing", func() bool { return webhook.metric("airflow_requeue_leader_ready") == 0 })
			unheld := time.Now()
			t.Logf("nothing is held %s after the outage began", unheld.Sub(began).Round(time.Millisecond))
			assert.Zero(t, reported(), "long before anything is reported")
			assert.InDelta(t, 0, watcher.metric("airflow_requeue_database_readable"), 0)
			s.untilNotHolding()
			until(t, "what ended is reported", func() bool { return reported() > 0 })
			t.Logf("the first report came %s after the outage began", time.Since(began).Round(time.Millisecond))
			assert.GreaterOrEqual(t, time.Since(began), time.Minute)
			until(t, "all that ended is reported", func() bool { return len(s.endedHeld()) == 0 })
			time.Sleep(time.Until(began.Add(70 * time.Second)))

			mended := time.Now()
			line.mend()
			until(t, "the watcher says that it can decide", func() bool { return s.ready() == "true" })
			s.untilHolding()
			heldAgain := time.Now()
			t.Logf("pods are held again %s after the outage", heldAgain.Sub(mended).Round(time.Millisecond))
			assert.InDelta(t, 1, watcher.metric("airflow_requeue_database_readable"), 0)
			s.untilReplaced(heldAgain)
			stop()
			s.settles()

			s.unseen(func(e *entry) bool { return took(e) && e.at.After(heldAgain) })
			lost := s.count(func(e *entry) bool { return took(e) && len(e.failed) > 0 })
			require.Positive(t, lost)
			assert.InDelta(t, reported(), lost, float64(s.count(func(e *entry) bool { return e.held && e.fate == broken && len(e.failed) > 0 })))
			assert.Zero(t, s.count(func(e *entry) bool { return e.held && e.at.After(unheld) && e.made.Before(mended) }),
				"nothing is held while the database is gone")
			assert.Positive(t, watcher.metric("airflow_requeue_database_errors_total"))
			watcher.logged(1, "metadata database is unreadable", "metadata database is readable again")
			watcher.sparing()
			webhook.logged(1, "leader changed: leader not ready, pods are not held", "leader changed: leader ready, pods are held")
			webhook.sparing()
			t.Logf("%d tasks, %d held, %d reported for want of the database; the watcher's lines: %v; the webhook's: %v", len(s.names),
				s.count(func(e *entry) bool { return e.held }), lost, watcher.messages(), webhook.messages())
		})
	}
}

// endedHeld are pods that have ended and that Airflow does not see yet.
func (s *site) endedHeld() []string {
	var names []string
	for name, p := range s.Pods() {
		if requeue.Ended(p) && requeue.Held(p) && requeue.Attached(p) {
			names = append(names, name)
		}
	}
	return names
}
