package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"k8s.io/utils/clock"

	"github.com/airflow-requeue/airflow-requeue/pkg/watcher"
)

// release lifts every hold and says what it did, also when it could not finish.
func release(ctx context.Context, o *options, log *slog.Logger, stdout io.Writer) error {
	client, err := o.client(log, nil)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, o.timeout, fmt.Errorf("--timeout=%s is over; run it again", o.timeout))
	defer cancel()
	opts := watcher.ReleaseOptions{Installation: o.installation, Namespaces: o.namespaces, RequestTimeout: o.requestTimeout,
		Clock: clock.RealClock{}, Log: log}
	var done watcher.Released
	if o.unregister == "" {
		done, err = watcher.ReleaseAll(ctx, client, opts)
	} else {
		done, err = watcher.Uninstall(ctx, client, o.unregister, opts)
	}
	_, printErr := fmt.Fprintf(stdout, "installation %s: %d released, %d reported as failed, %d uncommitted replacements deleted, %d let go\n",
		o.installation, done.Released, done.Reported, done.Deleted, done.Stripped)
	return errors.Join(err, printErr)
}
