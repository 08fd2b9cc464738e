// Command watcher settles the worker pods that the webhook holds: it replaces those that died before their task
// started, and gives every other back to Airflow.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	// The image has no certificates of public authorities, which a managed database's certificate may be from. Where the
	// host has some, those are used.
	_ "golang.org/x/crypto/x509roots/fallback"

	"github.com/airflow-requeue/airflow-requeue/internal/flags"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "airflow-requeue-watcher:", err)
		os.Exit(1)
	}
}

// run is the whole program; only main knows of the process.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o, help, err := parse(args, flags.OwnNamespace())
	if err != nil {
		return err
	}
	if help != "" {
		_, err := fmt.Fprint(stdout, help)
		return err
	}
	log, err := o.log.New(stderr)
	if err != nil {
		return err
	}
	switch o.command {
	case commandRelease:
		return release(ctx, o, log, stdout)
	case commandCheck:
		return check(ctx, o, log, stdout)
	}
	return watch(ctx, o, log)
}
