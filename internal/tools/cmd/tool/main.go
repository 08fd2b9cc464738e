// Command tool prints the path of one of the project's tools, which it builds first if need be:
//
//	"$(go run ./internal/tools/cmd/tool golangci-lint)" run ./...
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/airflow-requeue/airflow-requeue/internal/tools"
)

func main() {
	if err := run(os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "tool:", err)
		os.Exit(1)
	}
}

func run(args []string, stdout, stderr io.Writer) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	for _, module := range []tools.Module{tools.Lint(), tools.Kustomize()} {
		if len(args) != 1 || args[0] != module.Name {
			continue
		}
		dir, err := tools.Build(ctx, stderr, module)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(stdout, filepath.Join(dir, module.Name))
		return err
	}
	return fmt.Errorf("taking the arguments %q: want one of golangci-lint and kustomize", args)
}
