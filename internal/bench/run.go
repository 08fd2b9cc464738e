package bench

import (
	"context"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Options say what a run measures.
type Options struct {
	Only     []string  // of Names; empty for all
	Quick    bool      // few samples, for a look whether all comes out right
	Storm    int       // pods of the largest storm
	Airflow  bool      // beside Airflow's own executor, which is installed from PyPI
	Profiles string    // folder for CPU profiles; empty for none
	Progress io.Writer // a line for each step
}

// benchmark is one that can be asked for.
type benchmark struct {
	name string
	run  func(*stage)
}

func benchmarks() []benchmark {
	return []benchmark{{"admission", admission}, {"recovery", recovery}, {"storm", storm}, {"scale", scale}}
}

// Names are what there is to measure.
func Names() []string {
	var names []string
	for _, b := range benchmarks() {
		names = append(names, b.name)
	}
	return names
}

// Run measures, and returns a report, also of what was measured before it failed. A slow outcome is none to fail for; a wrong one is
// an error.
func Run(ctx context.Context, o Options) (*Report, error) {
	report := newReport(o)
	err := Scoped(ctx, func(t testing.TB) { measure(t, o, report) })
	if ctx.Err() != nil {
		err = fmt.Errorf("interrupted: %w", ctx.Err())
	}
	if err != nil {
		report.Conditions.Notes = append(report.Conditions.Notes, "It ended early, by an error: what is not here was not measured.")
	}
	return report, err
}

// Measure is Run for a test.
func Measure(t testing.TB, o Options) *Report {
	t.Helper()
	report := newReport(o)
	measure(t, o, report)
	return report
}

func newReport(o Options) *Report {
	return &Report{Schema: 1, Began: time.Now().UTC().Truncate(time.Second), Conditions: conditions(o)}
}

func measure(t testing.TB, o Options, report *Report) {
	t.Helper()
	b := newBackdrop(t, o, report)
	defer func() {
		report.Conditions.Load = append(report.Conditions.Load, load())
		report.Took = significant(time.Since(b.began).Seconds())
		report.Goals = judge(report)
	}()
	if out, err := exec.CommandContext(t.Context(), "git", "-C", b.root, "describe", "--always", "--dirty").Output(); err == nil {
		report.Conditions.Revision = strings.TrimSpace(string(out))
	}
	for _, wanted := range benchmarks() {
		if len(o.Only) > 0 && !slices.Contains(o.Only, wanted.name) {
			continue
		}
		began := time.Now()
		require.NoError(t, Scoped(t.Context(), func(t testing.TB) {
			s := newStage(t, b)
			report.Conditions.Database = s.version()
			wanted.run(s)
		}))
		b.say("%s is measured, in %.0f s", wanted.name, time.Since(began).Seconds())
	}
}

// few is a number of samples, or one that is enough to see that all comes out right.
func (s *stage) few(n, quick int) int {
	if s.options.Quick {
		return quick
	}
	return n
}

// version names the database server.
func (s *stage) version() string {
	s.Helper()
	var version string
	if err := s.sql.Database(s, "").QueryRowContext(s.Context(), "SHOW server_version").Scan(&version); err != nil {
		s.Fatal(err)
	}
	version, _, _ = strings.Cut(version, " ")
	return "PostgreSQL " + version + " (fsync off)"
}
