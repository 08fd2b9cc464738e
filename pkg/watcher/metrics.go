package watcher

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// metrics are labelled by outcome and reason only, and by the program with its shard: never by pod, task or namespace, whose
// number nothing bounds.
type metrics struct {
	outcomes  *prometheus.CounterVec
	observed  *prometheus.CounterVec
	requeues  *prometheus.CounterVec
	recovery  prometheus.Histogram
	writes    *prometheus.CounterVec
	conflicts prometheus.Counter
	errors    prometheus.Counter
	queries   prometheus.Histogram
	rows      prometheus.Counter
	failures  prometheus.Counter
}

func newMetrics(r prometheus.Registerer, tracked, readable, leading, storm func() float64) (*metrics, error) {
	m := &metrics{
		outcomes: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "airflow_requeue_outcomes_total",
			Help: "Holds ended and pods deleted, by outcome and reason; requeues are counted apart."}, []string{"outcome", "reason"}),
		observed: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "airflow_requeue_observed_total",
			Help: "Pods of observe mode, by what would have become of them."}, []string{"outcome", "reason"}),
		requeues: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "airflow_requeue_requeues_total",
			Help: "Pods replaced, by reason."}, []string{"reason"}),
		recovery: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "airflow_requeue_recovery_seconds",
			Help: "From the first sight of a pod's end to its replacement.", Buckets: prometheus.ExponentialBuckets(0.005, 2, 14)}),
		writes: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "airflow_requeue_writes_total",
			Help: "Writes to the API server, by action."}, []string{"action"}),
		conflicts: prometheus.NewCounter(prometheus.CounterOpts{Name: "airflow_requeue_conflicts_total",
			Help: "Writes whose guard found the pod changed; it was read and decided on again."}),
		errors: prometheus.NewCounter(prometheus.CounterOpts{Name: "airflow_requeue_errors_total",
			Help: "Attempts to settle a pod that failed and were put back into the queue."}),
		queries: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "airflow_requeue_database_query_seconds",
			Help: "Queries to the metadata database.", Buckets: prometheus.ExponentialBuckets(0.001, 2, 14)}),
		rows: prometheus.NewCounter(prometheus.CounterOpts{Name: "airflow_requeue_database_rows_total",
			Help: "Task instances asked for in queries to the metadata database."}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{Name: "airflow_requeue_database_errors_total",
			Help: "Queries to the metadata database that failed."}),
	}
	gauge := func(name, help string, f func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, f)
	}
	for _, c := range []prometheus.Collector{m.outcomes, m.observed, m.requeues, m.recovery, m.writes, m.conflicts, m.errors, m.queries, m.rows, m.failures,
		gauge("airflow_requeue_tracked_pods", "Pods on the watcher's list.", tracked),
		gauge("airflow_requeue_database_readable", "1 while the metadata database can be read.", readable),
		gauge("airflow_requeue_leader", "1 while this process leads.", leading),
		gauge("airflow_requeue_storm_breaker_open", "1 from when a pod was reported for --storm-breaker until none was for a minute.", storm),
	} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *metrics) outcome(d requeue.Decision) {
	m.outcomes.WithLabelValues(d.Action.String(), string(d.Reason)).Inc()
}

func (m *metrics) requeued(reason requeue.Reason, took time.Duration) {
	m.requeues.WithLabelValues(string(reason)).Inc()
	m.recovery.Observe(took.Seconds())
}
