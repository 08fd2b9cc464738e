package airflow_test

import (
	"fmt"
	"sync"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/airflow-requeue/airflow-requeue/internal/airflow"
	"github.com/airflow-requeue/airflow-requeue/internal/faultproxy"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// aSchedulerDies has one die that has pods in each state, and another adopt them.
func aSchedulerDies(s *stage) {
	s.change(nil)
	dead, gone, adopted := s.scheduler, make(chan struct{}), make(chan struct{})
	held := s.run("held", evictedAfter(adopted), works)
	meanwhile := s.run("meanwhile", evictedAfter(gone), worksAfter(adopted))
	replaced := s.run("replaced", evicted, worksAfter(adopted))
	runs := s.run("runs", runsUntil(adopted))
	s.pod(held, 0, "it is being made", hasNode)
	s.pod(meanwhile, 0, "it is being made", hasNode)
	s.pod(replaced, 1, "it is being made", hasNode)
	s.pod(runs, 0, "its hold is lifted", isReleased)
	dead.Kill()
	close(gone)
	s.pod(meanwhile, 1, "it is being made", hasNode)

	assert.Zero(s.T, s.succeed(dead), "task instances that were reset")
	close(adopted)
	for key, pods := range map[requeue.Key]int{held: 2, meanwhile: 2, replaced: 2, runs: 1} {
		s.comes(key, outcome{Events: []string{"success"}, State: "success", Try: 1, Pods: pods})
		row, err := s.database.Row(s.T.Context(), key)
		require.NoError(s.T, err)
		assert.Equal(s.T, s.scheduler.JobID, row.JobID, "the scheduler that it belongs to")
	}
}

// aSchedulerDiesAtEachWrite has one die, and another adopt what it left, while the watcher is about to make a replacement's
// first, second, ... fifth write; nobody else writes to these pods. Between detach and commit there is no pod to adopt: then Airflow resets the task instance,
// as it does with one that has no pod, and queues it again.
func aSchedulerDiesAtEachWrite(s *stage) {
	s.change(nil)
	dead, now, adopted := s.scheduler, make(chan struct{}), make(chan struct{})
	keys := make([]requeue.Key, 5)
	for n := range keys {
		keys[n] = s.run(fmt.Sprintf("write-%d", n+1), givenUpAfter(now), works)
	}
	var reached sync.WaitGroup
	for n, key := range keys {
		pod := s.pod(key, 0, "it is being made", hasNode)
		reached.Add(1)
		here := sync.OnceFunc(reached.Done)
		s.front.Plan(pod.Name, func(r faultproxy.Request) faultproxy.Fault {
			if !r.Write || r.NWrite <= n {
				return nil
			}
			return faultproxy.First(func() {
				here()
				select {
				case <-adopted:
				case <-s.T.Context().Done():
				}
			})
		})
	}
	close(now)
	reached.Wait()
	dead.Kill()
	assert.Equal(s.T, 2, s.succeed(dead), "task instances that were reset")
	close(adopted)
	for n, key := range keys {
		want := outcome{Events: []string{"success"}, State: "success", Try: 1, Pods: 2}
		if n == 1 || n == 2 {
			s.queue(key)
			want.Events = []string{"queued", "success"}
		}
		s.comes(key, want)
	}
}

// succeed starts a scheduler that adopts what a dead one has left. It returns how many task instances it reset.
func (s *stage) succeed(dead *airflow.Scheduler) int {
	s.T.Helper()
	s.change(nil)
	require.NoError(s.T, s.scheduler.Bury(s.T.Context(), dead.JobID))
	reset, err := s.scheduler.Adopt(s.T.Context())
	require.NoError(s.T, err)
	return reset
}
