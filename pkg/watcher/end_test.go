package watcher_test

import (
	"context"
	"log/slog"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/airflow-requeue/airflow-requeue/pkg/watcher"
)

// Not parallel: no other test has a watcher while it runs.
func TestNothingOfAWatcherRunsOnAfterItsEnd(t *testing.T) {
	w := newWorld(t)
	p := w.start()
	ctx, cancel := context.WithCancel(t.Context())
	elected := make(chan error, 1)
	go func() {
		elected <- watcher.RunElected(ctx, w.client, watcher.LeaseOptions{Namespace: w.namespace, Name: "watcher", Identity: "a",
			Duration: 3 * time.Second, RenewDeadline: 2 * time.Second, RetryPeriod: 100 * time.Millisecond},
			p.Ready, p.Lead, slog.New(slog.DiscardHandler))
	}()
	pod := w.submit(w.queued("last"))
	w.delete(pod.Name)
	w.untilFree(pod.Name + "-r1")
	cancel()
	require.NoError(t, <-elected)
	p.stop()
	var left string
	defer func() {
		if t.Failed() {
			t.Log(left)
		}
	}()
	w.eventually("all of it has ended", func() bool {
		left = ""
		for _, stack := range strings.Split(stacks(), "\n\n") {
			for _, ours := range []string{"airflow-requeue/pkg/watcher.", "client-go/tools/cache.", "client-go/util/workqueue.", "client-go/tools/leaderelection."} {
				if strings.Contains(stack, ours) && !strings.Contains(stack, "testing.tRunner") { // a parallel test in waiting
					left += stack + "\n\n"
				}
			}
		}
		return left == ""
	})
}

func stacks() string {
	buffer := make([]byte, 4<<20)
	return string(buffer[:runtime.Stack(buffer, true)])
}
