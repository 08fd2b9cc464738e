package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"k8s.io/utils/clock"

	"github.com/airflow-requeue/airflow-requeue/internal/keyfile"
	"github.com/airflow-requeue/airflow-requeue/pkg/preflight"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

const (
	outputTable = "table"
	outputJSON  = "json"
)

// check prints what a preflight has found; it is an error where anything has failed.
func check(ctx context.Context, o *options, log *slog.Logger, stdout io.Writer) error {
	client, err := o.client(log, nil)
	if err != nil {
		return err
	}
	var missing error
	if o.init {
		missing = initKeys(ctx, o, client, log)
	}
	keys := func() (requeue.Keys, error) {
		if missing != nil {
			return requeue.Keys{}, missing
		}
		return keyfile.Load(o.signingKeys)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, o.timeout, fmt.Errorf("--timeout=%s is over", o.timeout))
	defer cancel()
	all := preflight.Run(ctx, client, preflight.Options{
		Installation: o.installation, Namespaces: o.namespaces, Shards: o.shards, Lease: o.lease, Policy: o.policy, Database: o.database,
		Keys: keys, KeysSecret: o.keysSecret, Clock: clock.RealClock{}, Starting: o.init})
	if o.output == outputJSON {
		encoder := json.NewEncoder(stdout)
		encoder.SetIndent("", "  ")
		err = encoder.Encode(all)
	} else {
		err = preflight.Print(stdout, all)
	}
	if err != nil {
		return fmt.Errorf("printing the checks: %w", err)
	}
	var failed []string
	for _, found := range all {
		if found.State == preflight.Fail {
			failed = append(failed, found.Check)
		}
	}
	if len(failed) > 0 {
		return fmt.Errorf("%d of %d checks failed: %s", len(failed), len(all), strings.Join(failed, ", "))
	}
	return nil
}
