package airflow

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/airflow-requeue/airflow-requeue/internal/tools"
	"github.com/airflow-requeue/airflow-requeue/pkg/tidb"
)

const (
	// pythons are those that every version supports.
	pythons = ">=3.10,<3.13"
	// uvVersion is installed where there is no uv.
	uvVersion = "0.13.9"
)

// Environment is a folder with an installed Airflow and, for SQLite, with a database that its migration has made.
type Environment struct {
	Version
	dir string
}

// Install returns a version's environment from the cache. The first call makes it, in less than a minute, and says on w
// how far it is.
func Install(ctx context.Context, w io.Writer, v Version) (Environment, error) {
	uv, err := installUV(ctx, w)
	if err != nil {
		return Environment{}, err
	}
	packages := v.packages()
	dir, err := tools.Keep(ctx, w, tools.Kept{
		Name: "airflow-" + v.Airflow, Key: strings.Join(append(packages, v.Until, pythons), " "),
		Programs: []string{"bin/python"}, Takes: "about a minute",
		Make: func(ctx context.Context, out string, log io.Writer) error {
			if err := run(ctx, log, nil, uv, "venv", "--allow-existing", "--relocatable", "--python", pythons, out); err != nil {
				return err
			}
			python := filepath.Join(out, "bin", "python")
			if err := run(ctx, log, nil, uv, append([]string{"pip", "install", "--python", python, "--exclude-newer", v.Until,
				"--prerelease", "if-necessary-or-explicit"}, packages...)...); err != nil {
				return err
			}
			if v.Database != tidb.SQLite {
				return nil
			}
			made := Environment{Version: v, dir: out}
			if err := made.Migrate(ctx, log, filepath.Join(out, "home"), "sqlite:///"+made.sqlite()); err != nil {
				return err
			}
			// What is not in the file itself would not be copied with it.
			return run(ctx, log, nil, python, "-c",
				"import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('PRAGMA wal_checkpoint(TRUNCATE)')", made.sqlite())
		},
	})
	return Environment{Version: v, dir: dir}, err
}

// Program is the path of a program that the environment has.
func (e Environment) Program(name string) string { return filepath.Join(e.dir, "bin", name) }

func (e Environment) python() string { return e.Program("python") }

// sqlite is the path of the migrated database.
func (e Environment) sqlite() string { return filepath.Join(e.dir, "airflow.db") }

// Migrate has Airflow make its own tables in the database at an SQLAlchemy URL, with a home for what else it writes.
func (e Environment) Migrate(ctx context.Context, log io.Writer, home, url string) error {
	settings := []string{"AIRFLOW_HOME=" + home, "AIRFLOW__CORE__LOAD_EXAMPLES=False", "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=" + url}
	if err := run(ctx, log, settings, e.python(), "-m", "airflow", "db", "migrate"); err != nil {
		return fmt.Errorf("migrating a metadata database: %w", err)
	}
	return nil
}

// installUV finds uv, or installs it by the Python that is here.
func installUV(ctx context.Context, w io.Writer) (string, error) {
	if path, err := exec.LookPath("uv"); err == nil {
		return path, nil
	}
	dir, err := tools.Keep(ctx, w, tools.Kept{
		Name: "uv", Key: uvVersion, Programs: []string{"bin/uv"}, Takes: "some seconds",
		Make: func(ctx context.Context, out string, log io.Writer) error {
			if err := run(ctx, log, nil, "python3", "-m", "venv", out); err != nil {
				return err
			}
			return run(ctx, log, nil, filepath.Join(out, "bin", "python"), "-m", "pip", "install", "uv=="+uvVersion)
		},
	})
	if err != nil {
		return "", fmt.Errorf("installing uv (it wants Python with venv: hack/python.sh): %w", err)
	}
	return filepath.Join(dir, "bin", "uv"), nil
}

// run runs a program to its end, with variables beside those of this process.
func run(ctx context.Context, log io.Writer, variables []string, program string, args ...string) error {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), variables...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("running %s %s: %w", filepath.Base(program), args[0], err)
	}
	return nil
}
