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
)

const (
	// pythons are those that every version supports.
	pythons = ">=3.10,<3.13"
	// uvVersion is installed where there is no uv.
	uvVersion = "0.13.9"
	// database is the name of the migrated database in an environment.
	database = "airflow.db"
)

// Environment is a folder with an installed Airflow, and with an SQLite database that its migration has made.
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
	packages := append([]string{"apache-airflow==" + v.Airflow, "apache-airflow-providers-cncf-kubernetes==" + v.Provider}, v.Also...)
	dir, err := tools.Keep(ctx, w, tools.Kept{
		Name: "airflow-" + v.Airflow, Key: strings.Join(append(packages, v.Until, pythons), " "),
		Programs: []string{"bin/python"}, Takes: "about a minute",
		Make: func(ctx context.Context, out string, log io.Writer) error {
			if err := run(ctx, log, uv, "venv", "--allow-existing", "--relocatable", "--python", pythons, out); err != nil {
				return err
			}
			python := filepath.Join(out, "bin", "python")
			if err := run(ctx, log, uv, append([]string{"pip", "install", "--python", python, "--exclude-newer", v.Until,
				"--prerelease", "if-necessary-or-explicit"}, packages...)...); err != nil {
				return err
			}
			return migrate(ctx, log, out)
		},
	})
	return Environment{Version: v, dir: dir}, err
}

// Program is the path of a program that the environment has.
func (e Environment) Program(name string) string { return filepath.Join(e.dir, "bin", name) }

func (e Environment) python() string { return e.Program("python") }

// Database is the content of an SQLite database with Airflow's own tables.
func (e Environment) Database() ([]byte, error) {
	content, err := os.ReadFile(filepath.Join(e.dir, database))
	if err != nil {
		return nil, fmt.Errorf("reading the migrated database: %w", err)
	}
	return content, nil
}

func migrate(ctx context.Context, log io.Writer, dir string) error {
	home := filepath.Join(dir, "home")
	cmd := exec.CommandContext(ctx, filepath.Join(dir, "bin", "python"), "-m", "airflow", "db", "migrate")
	cmd.Env = append(os.Environ(), "AIRFLOW_HOME="+home, "AIRFLOW__CORE__LOAD_EXAMPLES=False",
		"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=sqlite:///"+filepath.Join(dir, database))
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("migrating a database: %w", err)
	}
	// What is not in the file itself would not be copied with it.
	return run(ctx, log, filepath.Join(dir, "bin", "python"), "-c",
		"import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('PRAGMA wal_checkpoint(TRUNCATE)')", filepath.Join(dir, database))
}

// installUV finds uv, or installs it by the Python that is here.
func installUV(ctx context.Context, w io.Writer) (string, error) {
	if path, err := exec.LookPath("uv"); err == nil {
		return path, nil
	}
	dir, err := tools.Keep(ctx, w, tools.Kept{
		Name: "uv", Key: uvVersion, Programs: []string{"bin/uv"}, Takes: "some seconds",
		Make: func(ctx context.Context, out string, log io.Writer) error {
			if err := run(ctx, log, "python3", "-m", "venv", out); err != nil {
				return err
			}
			return run(ctx, log, filepath.Join(out, "bin", "python"), "-m", "pip", "install", "uv=="+uvVersion)
		},
	})
	if err != nil {
		return "", fmt.Errorf("installing uv (it wants Python with venv: hack/python.sh): %w", err)
	}
	return filepath.Join(dir, "bin", "uv"), nil
}

func run(ctx context.Context, log io.Writer, program string, args ...string) error {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("running %s %s: %w", filepath.Base(program), args[0], err)
	}
	return nil
}
