package watcher

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	clocktesting "k8s.io/utils/clock/testing"
)

type tripper func(*http.Request) (*http.Response, error)

func (f tripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestAnAPIServerThatIsSilentIsALineWhenItBeginsAndOneWhenItEnds(t *testing.T) {
	t.Parallel()
	var lines bytes.Buffer
	log := slog.New(slog.NewTextHandler(&lines, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
	now := clocktesting.NewFakePassiveClock(time.Unix(0, 0))
	registry := prometheus.NewRegistry()
	api, err := NewAPIServer(now, log, registry)
	require.NoError(t, err)
	var answer error
	transport := api.Wrap(tripper(func(*http.Request) (*http.Response, error) {
		if answer != nil {
			return nil, answer
		}
		return &http.Response{StatusCode: http.StatusInternalServerError, Body: io.NopCloser(strings.NewReader(""))}, nil
	}))
	ask := func(after time.Duration, err error) {
		now.SetTime(now.Now().Add(after))
		answer = err
		response, _ := transport.RoundTrip(&http.Request{})
		if response != nil {
			_ = response.Body.Close()
		}
	}
	refused := errors.New("connection refused")
	answers := func() float64 {
		families, err := registry.Gather()
		require.NoError(t, err)
		require.Len(t, families, 1)
		require.Equal(t, "airflow_requeue_api_server_answers", families[0].GetName())
		return families[0].GetMetric()[0].GetGauge().GetValue()
	}

	ask(time.Second, nil)
	ask(time.Second, refused)
	ask(3900*time.Millisecond, refused)
	require.Empty(t, lines.String(), "a connection that breaks is no outage")
	ask(time.Minute, context.Canceled)
	require.Empty(t, lines.String(), "nobody waited for that answer")
	ask(0, nil)
	for range 100 {
		ask(time.Second, refused)
	}
	require.Zero(t, answers())
	ask(0, nil)
	ask(0, nil)
	require.InDelta(t, 1, answers(), 0)
	require.Equal(t, "level=ERROR msg=\"API server does not answer\" for=5s error=\"connection refused\"\n"+
		"level=INFO msg=\"API server answers again\" after=1m40s\n", lines.String())
}

func TestAPodsErrorIsALineOnceAndAnAPIServersOnlyWhenItLasts(t *testing.T) {
	t.Parallel()
	lines := func(err error) (tried []int) {
		for n := range 30 {
			if worthALine(fmt.Errorf("patching pod: %w", err), n) {
				tried = append(tried, n)
			}
		}
		return tried
	}
	require.Empty(t, lines(&url.Error{Op: "Patch", URL: "https://x", Err: io.EOF}), "it is said of the API server, once")
	require.Equal(t, []int{10}, lines(apierrors.NewInternalError(errors.New("etcd"))))
	require.Equal(t, []int{10}, lines(apierrors.NewTooManyRequests("later", 1)))
	require.Equal(t, []int{0}, lines(apierrors.NewForbidden(corev1.Resource("pods"), "x", errors.New("no"))))
	require.Equal(t, []int{0}, lines(errors.New("encoding a patch")))
}
