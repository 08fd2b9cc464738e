package mutate

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics count what the webhook does.
type Metrics struct {
	admissions *prometheus.CounterVec
	seconds    prometheus.Histogram
	refusals   *prometheus.CounterVec
	shed       prometheus.Counter
	underWay   prometheus.Gauge
	leader     *prometheus.GaugeVec
	sweeps     *prometheus.CounterVec
}

// NewMetrics registers the metrics; every label value is there from the start, those of a shard from when its leader is
// followed, so that a rate has a zero to rise from.
func NewMetrics(registry prometheus.Registerer) *Metrics {
	m := &Metrics{
		admissions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "airflow_requeue_admissions_total", Help: "Reviews of pods, by what became of them. A pod may be reviewed twice; dry runs are left out.",
		}, []string{"outcome"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "airflow_requeue_admission_seconds", Help: "Time to decide on a pod's admission and make its patch.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 2, 12), // 0.1 ms to 0.2 s; the API server waits 2 s
		}),
		refusals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "airflow_requeue_requests_refused_total", Help: "Requests that were not an admission review of a pod, by HTTP status.",
		}, []string{"code"}),
		shed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "airflow_requeue_reviews_shed_total", Help: "Requests answered at once, their pods going unheld, since as many reviews as may be were under way.",
		}),
		underWay: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "airflow_requeue_reviews_under_way", Help: "Requests that are being read, decided on or answered.",
		}),
		leader: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "airflow_requeue_leader_ready", Help: "1 while this webhook sees a watcher of the shard lead that can decide, and so holds pods of its namespaces.",
		}, []string{"shard"}),
		sweeps: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "airflow_requeue_sweeps_total", Help: "Times that all holds of a shard were lifted because no watcher led.",
		}, []string{"shard", "result"}),
	}
	for _, o := range Outcomes() {
		m.admissions.WithLabelValues(string(o))
	}
	registry.MustRegister(m.admissions, m.seconds, m.refusals, m.shed, m.underWay, m.leader, m.sweeps)
	return m
}

const (
	sweepDone    = "done"
	sweepFailed  = "failed"
	sweepStopped = "stopped" // a watcher leads again, or we end
)

func (m *Metrics) admitted(o Outcome, took time.Duration) {
	m.admissions.WithLabelValues(string(o)).Inc()
	m.seconds.Observe(took.Seconds())
}

func (m *Metrics) refused(code int) { m.refusals.WithLabelValues(strconv.Itoa(code)).Inc() }

// follow begins to tell of a shard's leader.
func (m *Metrics) follow(shard string) {
	m.leaderReady(shard, false)
	for _, result := range []string{sweepDone, sweepFailed, sweepStopped} {
		m.sweeps.WithLabelValues(shard, result)
	}
}

func (m *Metrics) leaderReady(shard string, ready bool) {
	value := 0.0
	if ready {
		value = 1
	}
	m.leader.WithLabelValues(shard).Set(value)
}

func (m *Metrics) swept(shard, result string) { m.sweeps.WithLabelValues(shard, result).Inc() }
