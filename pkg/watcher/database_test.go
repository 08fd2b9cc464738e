package watcher_test

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

func TestAnEndedPodIsReportedWhenTheDatabaseHasBeenUnreadableForAMinute(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.run()
	w.eventually("it can decide", p.Ready)
	p.rows.breaks(errors.New("the database is down"))
	task := w.queued("outage")
	pod := w.submit(task)
	began := w.clock.Now()
	_, err := w.kubelet.Reject(t.Context(), pod, "NodeAffinity", "no")
	require.NoError(t, err)
	w.eventually("it says that it can't", func() bool { return !p.Ready() })
	w.passing(6*time.Second, "the report", func() bool { return len(w.executor.saw()) > 0 })
	require.GreaterOrEqual(t, w.clock.Since(began), time.Minute)
	w.untilUntracked(pod.Name)
	w.seenOnly("failed " + pod.Name)
	w.untilEvent(pod, "DatabaseUnavailable", "the metadata database could not be read for 1m0s; NodeAffinity")
}

func TestAnEndedPodIsReplacedWhenTheDatabaseIsBackInTime(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.run(func(p *process) { p.rows.broken = errors.New("the database is down") })
	w.eventually("the database was asked", func() bool { return p.DatabaseError() != nil })
	require.False(t, p.Ready())
	task := w.queued("outage")
	pod := w.submit(task)
	_, err := w.kubelet.Reject(t.Context(), pod, "NodeAffinity", "no")
	require.NoError(t, err)
	reads := p.rows.count()
	w.clock.forward(30 * time.Second)
	w.eventually("it has tried again since", func() bool { return p.rows.count() > reads+1 })
	require.True(t, requeue.Held(w.now(pod.Name)) && !requeue.Detached(w.now(pod.Name)))

	p.rows.breaks(nil)
	w.checkReplacement(w.untilFree(pod.Name+"-r1"), pod, task, 1)
	require.True(t, p.Ready())
	w.nothingSeen()
}

func TestReadinessComesBackWithTheDatabaseThoughNoPodAsksForIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.run(func(p *process) { p.rows.broken = errors.New("the database is down") })
	w.eventually("the database was asked", func() bool { return p.DatabaseError() != nil })
	require.False(t, p.Ready())
	p.rows.breaks(nil)
	w.passing(time.Second, "it can decide", p.Ready)
	require.NoError(t, p.DatabaseError())
	require.Zero(t, p.rows.count())
	p.stop()
	require.False(t, p.Ready(), "who does not lead decides nothing")
}

func TestAReplacementStaysGatedWhileTheDatabaseIsUnreadable(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	task := w.queued("outage")
	pod, err := w.kubelet.Reject(t.Context(), w.submit(task), "NodeAffinity", "no")
	require.NoError(t, err)
	down := errors.New("the database is down")
	p := w.run(func(p *process) {
		p.rows.after = func(n int, _ requeue.Ref) {
			if n == 2 { // the read after the detach: the create follows
				p.rows.breaks(down)
			}
		}
	})
	gated := w.until(pod.Name+"-r1", "committed", func(r *corev1.Pod) bool { return r != nil && requeue.Committed(r) })
	w.untilUntracked(pod.Name)
	reads := p.rows.count()
	w.eventually("the row was tried again", func() bool { return p.rows.count() > reads })
	require.True(t, requeue.Gated(w.now(gated.Name)))
	p.rows.breaks(nil)
	w.untilFree(gated.Name)
	w.nothingSeen()
}

func TestAPodWhoseRowAloneIsUnreadableIsReportedToo(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.run(func(p *process) { p.rows.broken, p.rows.only = errors.New("the key has several rows"), "poison" })
	task := w.queued("poison")
	began := w.clock.Now()
	pod, err := w.kubelet.Reject(t.Context(), w.submit(task), "NodeAffinity", "no")
	require.NoError(t, err)
	w.passing(5*time.Second, "the report", func() bool { return len(w.executor.saw()) > 0 })
	require.GreaterOrEqual(t, w.clock.Since(began), time.Minute)
	w.untilUntracked(pod.Name)
	w.untilEvent(pod, "DatabaseUnavailable", "")
	w.passing(time.Second, "it can decide, for all others", p.Ready)
}

func TestAReadThatFailedLongBeforeThePodEndedDoesNotCount(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	down := errors.New("the key has several rows")
	p := w.run(func(p *process) { p.rows.broken, p.rows.only = down, "poison" })
	pod := w.submit(w.queued("poison"))
	w.eventually("its row was asked for at first sight", func() bool { return p.rows.count() > 0 })
	p.rows.breaks(nil)
	w.clock.forward(3 * time.Minute)
	p.rows.breaks(down)
	began := w.clock.Now()
	_, err := w.kubelet.Reject(t.Context(), pod, "NodeAffinity", "no")
	require.NoError(t, err)
	w.passing(5*time.Second, "the report", func() bool { return len(w.executor.saw()) > 0 })
	require.GreaterOrEqual(t, w.clock.Since(began), time.Minute)
}
