// Command airflow installs every version of Airflow that is tested into the cache, once, and prints what there is.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/airflow-requeue/airflow-requeue/internal/airflow"
)

func main() {
	if err := run(os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "airflow:", err)
		os.Exit(1)
	}
}

func run(stdout, stderr io.Writer) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	for _, version := range airflow.Versions() {
		if _, err := airflow.Install(ctx, stderr, version); err != nil {
			return err
		}
		if _, err := fmt.Fprintf(stdout, "airflow: %s is here\n", version); err != nil {
			return err
		}
	}
	return nil
}
