// Command vulnerabilities looks for known vulnerabilities in packages, with govulncheck, and says what it did not check
// where the database of vulnerabilities can't be reached:
//
//	go run ./internal/tools/cmd/vulnerabilities ./cmd/...
//
// It exits non-zero for a vulnerability that the packages call, and for all that goes wrong but an unreachable database;
// with --require-database for that as well.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"github.com/airflow-requeue/airflow-requeue/internal/tools"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "vulnerabilities:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	set := pflag.NewFlagSet("vulnerabilities", pflag.ContinueOnError)
	database := set.String("database", "https://vuln.go.dev", "`URL` of the database of vulnerabilities")
	required := set.Bool("require-database", false, "fail where the database can't be reached")
	dir := set.String("dir", ".", "`folder` that the packages are looked for in")
	if err := set.Parse(args); err != nil {
		return err
	}
	if set.NArg() == 0 {
		return errors.New("no packages are given: name some, such as ./cmd/watcher")
	}
	changed, err := reach(ctx, *database)
	if err != nil {
		parts, partsErr := unchecked(ctx, *dir, set.Args())
		if partsErr != nil {
			return partsErr
		}
		fmt.Fprintf(stdout, "vulnerabilities: NOT CHECKED: %v\nvulnerabilities: whether any is known of %s is unknown to this run\n", err, parts)
		if *required {
			return errors.New("nothing was checked, and --require-database is set")
		}
		return nil
	}
	fmt.Fprintf(stdout, "vulnerabilities: as %s knew them at %s\n", *database, changed.Format(time.RFC3339))
	built, err := tools.Build(ctx, stderr, tools.Govulncheck())
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, filepath.Join(built, "govulncheck"), append([]string{"-db", *database}, set.Args()...)...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = *dir, stdout, stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("running govulncheck: %w", err) // it exits with 3 for a vulnerability that is called
	}
	return nil
}

// reach says when the database was changed, which only a database knows: a proxy may have a page of its own for all that
// it does not let through.
func reach(ctx context.Context, database string) (changed time.Time, err error) {
	const patience = 30 * time.Second
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, database+"/index/db.json", nil)
	if err != nil {
		return time.Time{}, fmt.Errorf("%s can't be asked: %w", database, err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return time.Time{}, fmt.Errorf("%s can't be reached: %w", database, err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return time.Time{}, fmt.Errorf("%s can't be reached: %s answers %s", database, request.URL, response.Status)
	}
	var index struct{ Modified time.Time }
	if err := json.NewDecoder(response.Body).Decode(&index); err != nil || index.Modified.IsZero() {
		return time.Time{}, fmt.Errorf("%s can't be reached: what answers for it is no database of vulnerabilities", database)
	}
	return index.Modified, nil
}

// unchecked names what the packages are made of.
func unchecked(ctx context.Context, dir string, packages []string) (string, error) {
	list := func(args ...string) ([]string, error) {
		cmd := exec.CommandContext(ctx, "go", args...)
		cmd.Dir = dir
		out, err := cmd.Output()
		if err != nil {
			return nil, fmt.Errorf("running go %s: %w", args[0], err)
		}
		return slices.Compact(slices.Sorted(slices.Values(strings.Fields(string(out))))), nil
	}
	modules, err := list(append([]string{"list", "-deps", "-f", "{{with .Module}}{{if not .Main}}{{.Path}}{{end}}{{end}}"}, packages...)...)
	if err != nil {
		return "", err
	}
	version, err := list("env", "GOVERSION")
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s and of the %d modules that %s use", strings.Join(version, ""), len(modules), strings.Join(packages, " and ")), nil
}
