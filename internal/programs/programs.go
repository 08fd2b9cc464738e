// Package programs builds webhook and watcher and runs them for tests, as they ship, on a real API server.
package programs

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/airflow-requeue/airflow-requeue/internal/controlplane"
)

// Built are the paths of built programs, by the name of their folder under cmd.
type Built map[string]string

// Build builds programs into a folder, with the flags of `go build` that are given.
func Build(ctx context.Context, dir string, flags []string, names ...string) (Built, error) {
	built := Built{}
	for _, name := range names {
		var err error
		if built[name], err = BuildPackage(ctx, dir, flags, "cmd/"+name); err != nil {
			return nil, err
		}
	}
	return built, nil
}

// BuildPackage builds one program of the checkout into a folder, by its package's folder, and returns its path.
func BuildPackage(ctx context.Context, dir string, flags []string, folder string) (string, error) {
	program := filepath.Join(dir, path.Base(folder))
	args := append([]string{"build", "-ldflags=-s -w", "-o", program}, flags...)
	cmd := exec.CommandContext(ctx, "go", append(args, "github.com/airflow-requeue/airflow-requeue/"+folder)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building %s: %w\n%s", folder, err, out)
	}
	return program, nil
}

// Shared is what the tests of a package have in common.
type Shared struct {
	// Parallel is how many tests run at a time, whatever -parallel says: these wait more than they work.
	Parallel int
	// Programs are built before the tests run.
	Programs []string
	// Options are the control plane's.
	Options controlplane.Options
	// Prepare is done before the tests run, when the servers serve; nil for nothing.
	Prepare func(context.Context) error

	Servers *controlplane.ControlPlane
	Built   Built
}

// Main is for a TestMain: it runs the tests of the package, and returns the exit code.
func (s *Shared) Main(m *testing.M) int {
	flag.Parse()
	code, err := s.run(context.Background(), m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

func (s *Shared) run(ctx context.Context, m *testing.M) (code int, err error) {
	if s.Parallel > 0 {
		if err := flag.Set("test.parallel", strconv.Itoa(s.Parallel)); err != nil {
			return 0, err
		}
	}
	dir, err := os.MkdirTemp("", "airflow-requeue-programs-")
	if err != nil {
		return 0, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if s.Built, err = Build(ctx, dir, nil, s.Programs...); err != nil {
		return 0, err
	}
	if s.Servers, err = controlplane.Start(ctx, s.Options); err != nil {
		return 0, err
	}
	defer func() {
		if stopErr := s.Servers.Stop(); err == nil {
			err = stopErr
		}
	}()
	if s.Prepare != nil {
		if err := s.Prepare(ctx); err != nil {
			return 0, err
		}
	}
	return m.Run(), nil
}
