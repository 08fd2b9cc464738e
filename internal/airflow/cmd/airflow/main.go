// Command airflow installs every version of Airflow that is tested into the cache, once, and prints what there is.
//
//	airflow VERSION DATABASE
//
// installs one, with the drivers for postgresql, mysql or sqlite, and prints the path of its Python.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/airflow-requeue/airflow-requeue/internal/airflow"
)

func main() {
	if err := run(os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "airflow:", err)
		os.Exit(1)
	}
}

func run(args []string, stdout, stderr io.Writer) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if len(args) > 0 {
		return installOne(ctx, args, stdout, stderr)
	}
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

func installOne(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) != 2 {
		return errors.New("usage: airflow [VERSION DATABASE]")
	}
	version, err := airflow.Find(args[0], args[1])
	if err != nil {
		return err
	}
	environment, err := airflow.Install(ctx, stderr, version)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(stdout, environment.Program("python"))
	return err
}
