// Command bench measures what airflow-requeue costs and how fast it is, beside what it is to be compared with. It never fails
// for being slow; an outcome that is wrong is an error.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/airflow-requeue/airflow-requeue/internal/bench"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// run is the whole program; only main knows of the process.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o, help, err := parse(args)
	if err != nil {
		return err
	}
	if help != "" {
		_, err := io.WriteString(stdout, help)
		return err
	}
	o.measure.Progress = stderr
	report, failed := bench.Run(ctx, o.measure)
	if len(report.Series) == 0 {
		return failed
	}
	return errors.Join(report.Table(stdout), write(report, filepath.Join(o.out, name(failed))), failed)
}

// name of the report's file: one of a run that failed does not take the place of the last whole one.
func name(failed error) string {
	if failed != nil {
		return "unfinished.json"
	}
	return "bench.json"
}

// write writes the report into a file, and makes its folder.
func write(report *bench.Report, path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("making the folder for the report: %w", err)
	}
	file, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	return errors.Join(report.Write(file), file.Close())
}
