package bench

import (
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"

	"github.com/airflow-requeue/airflow-requeue/internal/executor"
	"github.com/airflow-requeue/airflow-requeue/internal/kubelet"
	"github.com/airflow-requeue/airflow-requeue/internal/scrape"
)

// scale runs the watcher on more and more pods: at rest, then while all of them run and are asked for in the database. What
// goes well costs writes as well.
func scale(s *stage) {
	m := s.mould()
	for _, pods := range []int{0, 1000, 10000, 100000} {
		if s.options.Quick && pods > 1000 {
			continue
		}
		s.with(func(i *site) { i.rest(m, pods) })
	}
	for _, pods := range []int{1000, 10000} {
		if s.options.Quick {
			pods /= 100
		}
		if pods >= 100 || !s.options.Quick {
			s.with(func(i *site) { i.poll(m, pods) })
		} else {
			s.with(func(i *site) { i.poll(m, 10) })
		}
	}
	s.with(func(i *site) { i.healthy(s.few(100, 3)) })
}

// rest has the watcher track pods to which nothing happens.
func (i *site) rest(m moulds, pods int) {
	i.t.Helper()
	queued := tasks(pods)
	i.rows.queue(queued...)
	i.put(i.cast(m.created, queued))
	began := time.Now()
	watcher := i.startWatcher()
	i.untilLeads(pods)
	i.report.series("scale.start", "s", "pods", pods).add(time.Since(began).Seconds())
	i.untilCalm()
	first := i.metrics(i.watcher)
	window := time.Duration(i.few(40, 1)) * time.Second // in which the watcher gives back what it does not need
	time.Sleep(window)
	last := i.metrics(i.watcher)
	labels := []any{"pods", pods}
	i.report.series("scale.cpu", "s/s", labels...).add((last.Sum("process_cpu_seconds_total") - first.Sum("process_cpu_seconds_total")) / window.Seconds())
	i.report.series("scale.queries", "1/s", labels...).add((last.Sum(queries) - first.Sum(queries)) / window.Seconds())
	i.report.series("scale.rss", "bytes", labels...).add(last.Sum("process_resident_memory_bytes"))
	i.report.series("scale.heap", "bytes", labels...).add(i.liveHeap())
	i.say("%d pods at rest: RSS %.1f MB, live heap %.1f MB, CPU %.2f%%, leads after %.1f s", pods, last.Sum("process_resident_memory_bytes")/1e6,
		i.report.find("scale.heap", labels...).last()/1e6, i.report.find("scale.cpu", labels...).last()*100, i.report.find("scale.start", labels...).last())
	if pods == 10000 || i.options.Quick && pods > 0 {
		watcher.Stop()
		i.restart(m, queued[0], pods)
	}
}

const (
	queries   = "airflow_requeue_database_query_seconds_count"
	rowsAsked = "airflow_requeue_database_rows_total"
)

// liveHeap is what is left of the watcher's heap when the garbage is collected.
func (i *site) liveHeap() float64 {
	i.t.Helper()
	_, err := fetch(i.t.Context(), "http://"+i.watcher+"/debug/pprof/heap?gc=1")
	require.NoError(i.t, err)
	return i.metrics(i.watcher).Sum("go_memstats_heap_alloc_bytes")
}

// restart has one of the pods fail while no watcher runs, and starts one: the time to its replacement is that of a rolling
// update, or of a watcher that was given a new node.
func (i *site) restart(m moulds, one executor.Task, pods int) {
	i.t.Helper()
	i.etcd.put(i.t, i.cast(m.failed, []executor.Task{one}))
	began := time.Now()
	i.startWatcher()
	i.until("the pod that failed meanwhile is decided on", func() bool {
		found, err := scrape.Get(i.t.Context(), i.watcher)
		return err == nil && found.Sum("airflow_requeue_writes_total") > 0
	})
	i.report.series("scale.restart", "s", "pods", pods).add(time.Since(began).Seconds())
	i.say("first decision after a restart with %d pods: %.1f s", pods, i.report.find("scale.restart", "pods", pods).last())
}

// poll has pods run whose tasks have not begun: their rows are read about once a second, many in one query.
func (i *site) poll(m moulds, pods int) {
	i.t.Helper()
	queued := tasks(pods)
	i.rows.queue(queued...)
	created, running := i.cast(m.created, queued), i.cast(m.running, queued)
	i.put(created)
	i.startWatcher()
	i.untilLeads(pods)
	i.untilCalm()
	// They do not begin to run at the same moment: a hundred at a time, over some seconds.
	for k := 0; k < len(running); k += 100 {
		i.etcd.change(i.t, running[k:min(k+100, len(running))])
		time.Sleep(time.Duration(37*(100)) * time.Millisecond / time.Duration(max(1, len(running)/100)))
	}
	time.Sleep(2 * time.Second)
	first := i.metrics(i.watcher)
	window := time.Duration(i.few(20, 2)) * time.Second
	time.Sleep(window)
	last := i.metrics(i.watcher)
	labels := []any{"pods", pods}
	rate := func(metric string) float64 { return (last.Sum(metric) - first.Sum(metric)) / window.Seconds() }
	i.report.series("poll.queries", "1/s", labels...).add(rate(queries))
	i.report.series("poll.rows", "1/s", labels...).add(rate(rowsAsked))
	i.report.series("poll.cpu", "s/s", labels...).add(rate("process_cpu_seconds_total"))
	require.Positive(i.t, rate(rowsAsked), "rows that are read")
	i.say("%d pods running: %.1f queries, %.0f rows a second, CPU %.1f%%", pods, rate(queries), rate(rowsAsked), rate("process_cpu_seconds_total")*100)
}

// healthy counts what a task costs that goes well, by what the API server and the database are asked.
func (i *site) healthy(n int) {
	i.t.Helper()
	i.install()
	ctx, airflow := i.t.Context(), i.asAirflow()
	kubelets, read := i.kubelets()
	i.untilCalm()
	before, metrics0 := i.requests(), i.metrics(i.watcher)
	queued := tasks(n)
	i.rows.queue(queued...)
	created := make([]*corev1.Pod, n)
	steps := []func(k int) error{
		func(k int) error {
			created[k], _ = i.submit(airflow, queued[k])
			return nil
		},
		func(k int) (err error) { created[k], err = kubelets.Bind(ctx, created[k], "node"); return err },
		func(k int) (err error) { created[k], err = kubelets.Create(ctx, created[k]); return err },
		func(k int) (err error) { created[k], err = kubelets.Start(ctx, created[k]); return err },
		func(k int) error { i.rows.run(queued[k], created[k].Name); return nil },
	}
	for _, step := range steps {
		for k := range n {
			require.NoError(i.t, step(k))
		}
	}
	i.until("all holds are lifted", func() bool {
		return i.metrics(i.watcher).Sum("airflow_requeue_outcomes_total", `outcome="release"`) >= float64(n)
	})
	// Without subresource there are Airflow's creates, what kubelets read, and our requests: they write to status and binding.
	asked := i.requests().less(before)
	asked["GET pods"] -= float64(read.Load())
	delete(asked, "POST pods")
	for what, count := range asked {
		i.report.series("healthy.requests", "1/task", "what", what).add(count / float64(n))
	}
	after := i.metrics(i.watcher)
	i.report.series("healthy.queries", "1/task").add((after.Sum(queries) - metrics0.Sum(queries)) / float64(n))
	i.report.series("healthy.rows", "1/task").add((after.Sum(rowsAsked) - metrics0.Sum(rowsAsked)) / float64(n))
	i.say("a task that goes well: %s", fmt.Sprint(asked.each(n)))
}

// kubelets are those of the namespace, and how often they have read a pod: real ones have a watch for that.
func (i *site) kubelets() (*kubelet.Kubelet, *atomic.Int64) {
	i.t.Helper()
	var read atomic.Int64
	config := rest.CopyConfig(i.servers.Config())
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return promhttp.RoundTripperFunc(func(r *http.Request) (*http.Response, error) {
			if r.Method == http.MethodGet {
				read.Add(1)
			}
			return next.RoundTrip(r)
		})
	})
	return kubelet.New(i.unlimited(config), kubelet.Options{Namespace: i.Namespace}), &read
}

// each is so many for each of n.
func (r requests) each(n int) map[string]string {
	each := map[string]string{}
	for what, count := range r {
		each[what] = fmt.Sprintf("%.2f", count/float64(n))
	}
	return each
}
