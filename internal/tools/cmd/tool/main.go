// Command tool prints the path of one of the project's tools, a line for each of its programs. It builds it first if need be:
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
	"strings"
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
	var known []string
	for _, module := range tools.All() {
		known = append(known, module.Name)
		if len(args) != 1 || args[0] != module.Name {
			continue
		}
		dir, err := tools.Build(ctx, stderr, module)
		if err != nil {
			return err
		}
		for _, program := range module.Binaries {
			if _, err := fmt.Fprintln(stdout, filepath.Join(dir, program)); err != nil {
				return err
			}
		}
		return nil
	}
	return fmt.Errorf("taking the arguments %q: want one of %s", args, strings.Join(known, ", "))
}
