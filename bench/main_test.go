package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/airflow-requeue/airflow-requeue/internal/bench"
)

// TestABenchmarkChecksItsOutcomesAndReportsAllOfItsSamples takes few samples: of times it says nothing.
func TestABenchmarkChecksItsOutcomesAndReportsAllOfItsSamples(t *testing.T) {
	report := bench.Measure(t, bench.Options{Quick: true, Storm: 100, Progress: t.Output()})

	path, table := filepath.Join(t.TempDir(), "docs", "bench.json"), &bytes.Buffer{}
	require.NoError(t, write(report, path))
	require.NoError(t, report.Table(table))
	raw, err := os.ReadFile(path)
	require.NoError(t, err)
	var read bench.Report
	require.NoError(t, json.Unmarshal(raw, &read), "%s", raw)
	assert.Equal(t, report, &read, "what is written is what was measured")
	for _, s := range read.Series {
		assert.Len(t, s.Samples, s.N, s.Name)
		assert.NotZero(t, s.N, "%s %v", s.Name, s.Labels)
		assert.NotEmpty(t, s.Unit, s.Name)
	}
	assert.Contains(t, table.String(), "A quick run: the numbers mean nothing.")
	for _, g := range read.Goals {
		assert.Contains(t, table.String(), g.What)
	}
}

// TestTheDocsShowTheTableOfTheReport keeps numbers from being written by hand: after `make bench`, copy the table that it prints.
func TestTheDocsShowTheTableOfTheReport(t *testing.T) {
	raw, err := os.ReadFile(filepath.FromSlash("../docs/bench/bench.json"))
	require.NoError(t, err)
	var report bench.Report
	require.NoError(t, json.Unmarshal(raw, &report))
	var table bytes.Buffer
	require.NoError(t, report.Table(&table))
	for _, doc := range []string{"../README.md", "../docs/performance.md"} {
		text, err := os.ReadFile(filepath.FromSlash(doc))
		require.NoError(t, err)
		assert.Contains(t, string(text), table.String(), doc)
		assert.Contains(t, string(text), "at revision "+report.Conditions.Revision, doc)
	}
}

func TestOptionsSayWhatThereIs(t *testing.T) {
	o, _, err := parse([]string{"--only=storm,scale", "--quick", "--airflow=false", "--out=here"})
	require.NoError(t, err)
	assert.Equal(t, options{out: "here", measure: bench.Options{Only: []string{"storm", "scale"}, Quick: true, Storm: 10000}}, o)

	_, _, err = parse([]string{"--only=speed"})
	assert.EqualError(t, err, "--only=speed: use some of admission,recovery,storm,scale")

	_, help, err := parse([]string{"--help"})
	require.NoError(t, err)
	assert.Contains(t, help, "admission,recovery,storm,scale")
}
