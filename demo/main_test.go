package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestTheDemoShowsWhatItMust(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	var out transcript

	err := run(t.Context(), nil, io.MultiWriter(&out, t.Output()))

	require.NoError(t, err)
	for _, row := range []string{
		"healthy | 1 | released | succeeded | succeeded | success, try 1 | 0",
		"drained | 2 | replaced (Evicted) | succeeded | failed | success, try 1 | 0 | # ms",
		"unscheduled | 2 | replaced (DeletedUnscheduled) | succeeded | nothing | success, try 1 | 0 | # ms",
		"rejected | 2 | replaced (KubeletRejected) | succeeded | failed | success, try 1 | 0 | # ms",
		"image_pull | 2 | replaced (ImagePull) | succeeded | failed | success, try 1 | 0 | # ms",
		"budget | 2 | reported (Exhausted) | failed | failed | up_for_retry, try 1 | 1 | # ms",
		"broken | 1 | reported (ExcludedReason) | failed | failed | up_for_retry, try 1 | 1",
		"Of 7 tasks the executor saw 2 fail. Without airflow-requeue: 5, and 1 would have waited ten minutes.",
	} {
		assert.Contains(t, out.rows(), row)
	}
	assert.NotContains(t, out.String(), "\x1b", "no colours but on a terminal")
	for line := range strings.Lines(out.String()) {
		assert.LessOrEqual(t, len([]rune(line)), 110+len("\n"), line)
	}
	left, err := os.ReadDir(os.TempDir())
	require.NoError(t, err)
	assert.Empty(t, left, "files that were left behind")
}

// The demo itself, with pods that nobody holds: what the executor sees now is what the column "without us" says of the
// other run.
func TestTheDemoFailsWhenPodsAreNotHeld(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	var out transcript

	err := run(t.Context(), []string{"--patience=10s", "--webhook-arg=--max-retries=0"}, io.MultiWriter(&out, t.Output()))

	require.Error(t, err)
	for _, difference := range []string{
		"healthy: airflow-requeue did: nothing, wanted: released",
		"drained: pods: 1, wanted: 2",
		"drained: the executor saw: pod 1 failed, wanted: pod 2 succeeded",
		"unscheduled: nothing more has come after 10s",
		"unscheduled: the task's state: queued, wanted: success",
		"image_pull: retries burnt: 1, wanted: 0",
		"pods held at their admission: 0, wanted: 7",
	} {
		assert.ErrorContains(t, err, difference)
	}
	for _, row := range []string{
		"healthy | 1 | nothing | succeeded | succeeded | success, try 1 | 0",
		"drained | 1 | nothing | failed | failed | up_for_retry, try 1 | 1",
		"unscheduled | 1 | nothing | nothing | nothing | queued, try 1 | 0",
		"rejected | 1 | nothing | failed | failed | up_for_retry, try 1 | 1",
		"image_pull | 1 | nothing | failed | failed | up_for_retry, try 1 | 1",
		"budget | 1 | nothing | failed | failed | up_for_retry, try 1 | 1",
		"broken | 1 | nothing | failed | failed | up_for_retry, try 1 | 1",
	} {
		assert.Contains(t, out.rows(), row)
	}
}

func TestAProcessThatEndsEndsTheDemoWithItsLastWords(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())

	err := run(t.Context(), []string{"--webhook-arg=--max-retries=-2"}, t.Output())

	require.ErrorContains(t, err, "webhook has ended: exit status 1: ")
	require.ErrorContains(t, err, "--max-retries=-2: use 0 for off")
}

func TestAnInterruptedDemoLeavesNothingBehind(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	var out transcript
	out.until, out.reached = "holds it", interrupt

	err := run(ctx, nil, io.MultiWriter(&out, t.Output()))

	require.EqualError(t, err, "interrupted")
	left, err := os.ReadDir(os.TempDir())
	require.NoError(t, err)
	assert.Empty(t, left)
}

func TestHelpNamesTheFlagsThatAreForPeople(t *testing.T) {
	var out transcript

	require.NoError(t, run(t.Context(), []string{"--help"}, &out))

	assert.Contains(t, out.String(), "--keep")
	assert.NotContains(t, out.String(), "--webhook-arg")
}

func TestUnknownArgumentsAreRefused(t *testing.T) {
	require.ErrorContains(t, run(t.Context(), []string{"--loud"}, io.Discard), "--loud")
	require.EqualError(t, run(t.Context(), []string{"loud"}, io.Discard), "unexpected argument loud; see --help")
}

// transcript is what the demo printed.
type transcript struct {
	mu      sync.Mutex
	printed bytes.Buffer
	until   string // where reached is called, if that is set
	reached func()
}

func (b *transcript) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.reached != nil && bytes.Contains(p, []byte(b.until)) {
		b.reached()
	}
	return b.printed.Write(p)
}

func (b *transcript) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.printed.String()
}

// rows are the lines, with a bar where columns end and a # for each time in milliseconds.
func (b *transcript) rows() []string {
	columns, times := regexp.MustCompile(` {2,}`), regexp.MustCompile(`\d+ ms`)
	var rows []string
	for line := range strings.Lines(b.String()) {
		rows = append(rows, times.ReplaceAllString(columns.ReplaceAllString(strings.TrimSpace(line), " | "), "# ms"))
	}
	return rows
}
