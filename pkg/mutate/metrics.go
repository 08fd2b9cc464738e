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
	leader     prometheus.Gauge
	sweeps     *prometheus.CounterVec
}

// NewMetrics registers the metrics; every label value is there from the start, so that a rate has a zero to rise from.
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
		leader: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "airflow_requeue_leader_ready", Help: "1 while this webhook sees a watcher lead that can decide, and so holds pods.",
		}),
		sweeps: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "airflow_requeue_sweeps_total", Help: "Times that all holds were lifted because no watcher led.",
		}, []string{"result"}),
	}
	for _, o := range Outcomes() {
		m.admissions.WithLabelValues(string(o))
	}
	for _, result := range []string{sweepDone, sweepFailed, sweepStopped} {
		m.sweeps.WithLabelValues(result)
	}
	registry.MustRegister(m.admissions, m.seconds, m.refusals, m.leader, m.sweeps)
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

func (m *Metrics) leaderReady(ready bool) {
	m.leader.Set(0)
	if ready {
		m.leader.Set(1)
	}
}

func (m *Metrics) swept(result string) { m.sweeps.WithLabelValues(result).Inc() }
