package bench

import (
	"bytes"
	"fmt"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/airflow-requeue/airflow-requeue/internal/scrape"
)

// workers is the default of the watcher's flag.
const workers = 200

// storm has many pods fail at once, and then makes the same writes to as many others, as fast as the API server takes them.
func storm(s *stage) {
	m := s.mould()
	for _, size := range []struct{ pods, times int }{{100, 3}, {1000, 3}, {5000, 1}, {10000, 1}} {
		if s.options.Quick {
			size.pods, size.times = size.pods/10, 1
		}
		if size.pods > s.options.Storm {
			continue
		}
		for range size.times {
			s.with(func(i *site) { i.storm(m, size.pods) })
			if size.pods > 5000 { // of the largest only the shape is wanted
				s.say("storm of %d pods: %.0f replaced a second", size.pods, s.report.find("storm.rate", "who", ours, "pods", size.pods).last())
				continue
			}
			s.with(func(i *site) { i.bare(m, size.pods, s.report.find("storm.events", "pods", size.pods).mean()) })
			mine, limit := s.report.find("storm.rate", "who", ours, "pods", size.pods), s.report.find("storm.rate", "who", none, "pods", size.pods)
			s.say("storm of %d pods: %.0f replaced a second, %.2f x the same writes alone", size.pods, mine.last(), mine.last()/limit.last())
		}
	}
	if s.options.Airflow {
		s.airflowStorms()
	}
}

func (s *Series) last() float64 { return s.Samples[len(s.Samples)-1] }

// storm is n pods that wait for their containers, and fail within a second.
func (i *site) storm(m moulds, n int) {
	i.t.Helper()
	queued := tasks(n)
	i.rows.queue(queued...)
	failed := i.cast(m.failed, queued)
	i.put(i.cast(m.created, queued))
	i.install()
	i.untilLeads(n)
	i.untilCalm()
	before, requests := i.metrics(i.watcher), i.requests()
	var took float64
	i.profiled(fmt.Sprintf("storm-%d", n), map[string]string{"watcher": i.watcher, "webhook": i.webhook}, func() { took = i.failAll(failed) })
	i.replaced(n)
	after := i.metrics(i.watcher)
	labels := []any{"who", ours, "pods", n}
	i.report.series("storm.rate", "pods/s", labels...).add(float64(n) / took)
	i.report.series("storm.took", "s", labels...).add(took)
	for name, metric := range map[string]string{"cpu": "process_cpu_seconds_total", "queries": "airflow_requeue_database_query_seconds_count",
		"rows": "airflow_requeue_database_rows_total", "conflicts": "airflow_requeue_conflicts_total", "errors": "airflow_requeue_errors_total"} {
		i.report.series("storm."+name, "1/pod", labels...).add((after.Sum(metric) - before.Sum(metric)) / float64(n))
	}
	for what, count := range i.requests().less(requests) {
		i.report.series("storm.requests", "1/pod", "who", ours, "pods", n, "what", what).add(count / float64(n))
	}
	i.report.series("storm.events", "1/pod", "pods", n).add(i.requests().less(requests)["POST events"] / float64(n))
}

// failAll has all pods fail, and returns the seconds until a replacement of each may run. The watcher's own count says so:
// to watch all pods would cost as much as the watcher does.
func (i *site) failAll(failed []*corev1.Pod) float64 {
	i.t.Helper()
	freed := func() float64 { return i.metrics(i.watcher).Sum("airflow_requeue_writes_total", `action="ungate"`) }
	before := freed()
	began := time.Now()
	failing := i.report.series("storm.failing", "s", "pods", len(failed))
	failing.add(i.etcd.change(i.t, failed))
	every := 100 * time.Millisecond // to ask takes the watcher a millisecond or two
	if len(failed) > 100 {
		every = 250 * time.Millisecond
	}
	curve := i.report.series("storm.curve", "pods", "pods", len(failed), "every", every, "run", failing.N, "from", "the last failure")
	for last, since := 0.0, time.Now(); ; time.Sleep(every) {
		count := freed() - before
		curve.add(count)
		if int(count) >= len(failed) {
			return time.Since(began).Seconds()
		}
		if count > last {
			last, since = count, time.Now()
		}
		require.Less(i.t, time.Since(since), time.Minute, "%v of %d pods are replaced, and no more; %v", count, len(failed), i.metrics(i.watcher))
	}
}

// untilCalm waits until the watcher has read what it reads at first sight, and asks for nothing.
func (i *site) untilCalm() {
	i.t.Helper()
	last, calm := -1.0, 0
	i.until("the watcher is at rest", func() bool {
		time.Sleep(300 * time.Millisecond)
		found := i.metrics(i.watcher)
		now := found.Sum(rowsAsked)
		if now != last || now < found.Sum("airflow_requeue_tracked_pods") {
			last, calm = now, 0
			return false
		}
		calm++
		return calm > 3
	})
}

// requests are what the API server was asked, by verb and resource.
type requests map[string]float64

func (i *site) requests() requests {
	i.t.Helper()
	text, err := i.client.CoreV1().RESTClient().Get().AbsPath("/metrics").DoRaw(i.t.Context())
	require.NoError(i.t, err)
	found, err := scrape.Read(bytes.NewReader(text))
	require.NoError(i.t, err)
	counted := requests{}
	for _, verb := range []string{"GET", "POST", "PATCH", "DELETE"} {
		for _, resource := range []string{"pods", "events"} {
			counted[verb+" "+resource] = found.Sum("apiserver_request_total", fmt.Sprintf("verb=%q", verb), fmt.Sprintf("resource=%q", resource), `subresource=""`)
		}
	}
	return counted
}

// less is what came since.
func (r requests) less(before requests) requests {
	since := requests{}
	for what, count := range r {
		if count > before[what] {
			since[what] = count - before[what]
		}
	}
	return since
}
