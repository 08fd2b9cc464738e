package mutate

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestReviewsBeyondTheBoundAreAnsweredAtOnceAndThoseUnderWayGoOn(t *testing.T) {
	const limit = 3
	arrived, goOn := make(chan struct{}), make(chan struct{})
	registry := prometheus.NewRegistry()
	metrics := NewMetrics(registry)
	measured := func(name string) int {
		families, err := registry.Gather()
		require.NoError(t, err)
		for _, family := range families {
			if family.GetName() == "airflow_requeue_reviews_"+name {
				return int(family.GetMetric()[0].GetGauge().GetValue() + family.GetMetric()[0].GetCounter().GetValue())
			}
		}
		require.FailNow(t, "no such metric", name)
		return 0
	}
	server := httptest.NewTLSServer(Bound(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		<-goOn
		_, _ = io.Copy(w, r.Body)
	}), limit, metrics))
	t.Cleanup(server.Close)
	type answer struct {
		code int
		body string
	}
	review := func(body string) answer {
		response, err := server.Client().Post(server.URL, "application/json", strings.NewReader(body))
		if !assert.NoError(t, err) {
			return answer{}
		}
		defer response.Body.Close()
		assert.Empty(t, response.Header.Get("Retry-After"), "the API server's client would wait")
		content, err := io.ReadAll(response.Body)
		assert.NoError(t, err)
		return answer{response.StatusCode, string(content)}
	}
	answers := make(chan answer, limit)
	for range limit {
		go func() { answers <- review("pod") }()
		<-arrived
	}
	assert.Equal(t, limit, measured("under_way"))

	for range 2 * limit { // while nothing under way can end
		require.Equal(t, answer{http.StatusServiceUnavailable, "as many reviews as may be are under way\n"}, review("another pod"))
	}

	assert.Equal(t, 2*limit, measured("shed_total"))
	close(goOn)
	for range limit {
		assert.Equal(t, answer{http.StatusOK, "pod"}, <-answers)
	}
	require.Eventually(t, func() bool { return measured("under_way") == 0 }, time.Minute, time.Millisecond)
	go func() { <-arrived }()
	assert.Equal(t, answer{http.StatusOK, "a later pod"}, review("a later pod"), "there is room again")
}
