package watcher

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/utils/clock"
)

// silence is how long the API server may answer nothing before that is a line in the log: a connection that breaks is
// none, and a leader asks every few seconds.
const silence = 5 * time.Second

// APIServer remembers whether the API server answers, whatever was asked, and says once when that changes: the pods that
// wait for it say nothing.
type APIServer struct {
	clock clock.PassiveClock
	log   *slog.Logger

	mu       sync.Mutex
	answered time.Time // the last answer
	silent   bool
}

// NewAPIServer returns what Wrap has to be called on.
func NewAPIServer(c clock.PassiveClock, log *slog.Logger, r prometheus.Registerer) (*APIServer, error) {
	a := &APIServer{clock: c, log: log, answered: c.Now()}
	return a, r.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "airflow_requeue_api_server_answers",
		Help: "1 while the API server answers."}, func() float64 {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.silent {
			return 0
		}
		return 1
	}))
}

type listening struct {
	http.RoundTripper
	api *APIServer
}

// Wrap listens to a client's requests (rest.Config.Wrap).
func (a *APIServer) Wrap(next http.RoundTripper) http.RoundTripper { return listening{next, a} }

// RoundTrip takes note of how a request was answered.
func (l listening) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := l.RoundTripper.RoundTrip(r)
	if !errors.Is(err, context.Canceled) { // else nobody waited for the answer
		l.api.observe(err)
	}
	return response, err
}

func (a *APIServer) observe(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.clock.Now()
	since := now.Sub(a.answered).Round(time.Second).String()
	switch {
	case err == nil:
		if a.silent {
			a.log.Info("API server answers again", "after", since)
		}
		a.silent, a.answered = false, now
	case !a.silent && now.Sub(a.answered) >= silence:
		a.silent = true
		a.log.Error("API server does not answer", "for", since, "error", err)
	}
}

// lasting is how many times in a row the API server may fail a pod's request before that is a line in the log: about ten
// seconds.
const lasting = 10

// worthALine reports whether an error of a pod that was tried before, so many times, is to be logged: once, not once a
// retry. An error without an answer is the API server's and not the pod's.
func worthALine(err error, tried int) bool {
	var unanswered *url.Error
	if errors.As(err, &unanswered) {
		return false
	}
	var answer apierrors.APIStatus
	if errors.As(err, &answer) && (answer.Status().Code >= http.StatusInternalServerError || apierrors.IsTooManyRequests(err)) {
		return tried == lasting
	}
	return tried == 0
}
