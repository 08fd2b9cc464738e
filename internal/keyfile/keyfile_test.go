package keyfile

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/airflow-requeue/airflow-requeue/internal/kubelet"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

const (
	first  = "first-secret-of-thirty-two-bytes"
	second = "second-secret-of-more-than-thirty-two-bytes"
)

const waitFor = 20 * time.Second

// write makes dir a directory of plain files.
func write(t *testing.T, dir string, files map[string]string) string {
	t.Helper()
	require.NoError(t, os.MkdirAll(dir, 0o700))
	for name, content := range files {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
	}
	return dir
}

// mount is what the kubelet does.
func mount(t *testing.T, dir, generation string, files map[string]string) {
	t.Helper()
	content := map[string][]byte{}
	for name, text := range files {
		content[name] = []byte(text)
	}
	require.NoError(t, kubelet.Mount(dir, generation, content))
}

func keys(current string, secrets ...string) requeue.Keys {
	k := requeue.Keys{Current: current, Secrets: map[string][]byte{}}
	for i := 0; i+1 < len(secrets); i += 2 {
		k.Secrets[secrets[i]] = []byte(secrets[i+1])
	}
	return k
}

func TestLoad(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		want  requeue.Keys
	}{
		"one key":                       {map[string]string{"current": "a", "a": first}, keys("a", "a", first)},
		"two keys":                      {map[string]string{"current": "b", "a": first, "b": second}, keys("b", "a", first, "b", second)},
		"newlines at the end":           {map[string]string{"current": "a\n", "a": first + "\n", "b": second + "\r\n"}, keys("a", "a", first, "b", second)},
		"a newline that is part of it":  {map[string]string{"current": "a", "a": first + "\n\n"}, keys("a", "a", first+"\n")},
		"bytes that are no text":        {map[string]string{"current": "a", "a": strings.Repeat("\x00\xff", 16)}, keys("a", "a", strings.Repeat("\x00\xff", 16))},
		"files that are not the user's": {map[string]string{"current": "a", "a": first, "..2026": "odd"}, keys("a", "a", first)},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Load(write(t, t.TempDir(), c.files))
			require.NoError(t, err)
			assert.Equal(t, c.want, got)
		})
	}
	t.Run("a mounted Secret", func(t *testing.T) {
		dir := t.TempDir()
		mount(t, dir, "..2026_01", map[string]string{"current": "a", "a": first})
		got, err := Load(dir)
		require.NoError(t, err)
		assert.Equal(t, keys("a", "a", first), got)
	})
	t.Run("a directory beside the files", func(t *testing.T) {
		dir := write(t, t.TempDir(), map[string]string{"current": "a", "a": first})
		require.NoError(t, os.Mkdir(filepath.Join(dir, "lost+found"), 0o700))
		got, err := Load(dir)
		require.NoError(t, err)
		assert.Equal(t, keys("a", "a", first), got)
	})
}

func TestLoadErrorsNameFilesAndQuoteNothing(t *testing.T) {
	const current = "file current must hold the name of another file: that of the key that signs"
	for name, c := range map[string]struct {
		files map[string]string
		says  string
	}{
		"no file":                    {nil, "no signing keys are there yet"},
		"no current":                 {map[string]string{"a": first}, current},
		"a secret as current":        {map[string]string{"current": first, "a": first}, current},
		"current names itself":       {map[string]string{"current": "current", "a": first}, current},
		"a key that is too short":    {map[string]string{"current": "a", "a": first, "b": "short"}, "signing key b: 5 bytes, at least 32 are needed"},
		"a name that can't be an id": {map[string]string{"current": "a", "a": first, "b c": second}, `signing key "b c": an id is 1 to 63 letters, digits, '-', '_' or '.'`},
	} {
		t.Run(name, func(t *testing.T) {
			dir := write(t, t.TempDir(), c.files)
			_, err := Load(dir)
			assert.EqualError(t, err, "loading signing keys from "+dir+": "+c.says)
		})
	}
	t.Run("no directory", func(t *testing.T) {
		_, err := Load("nowhere")
		assert.EqualError(t, err, "loading signing keys from nowhere: open nowhere: no such file or directory")
	})
	t.Run("a link to nothing", func(t *testing.T) {
		dir := write(t, t.TempDir(), map[string]string{"current": "a", "a": first})
		require.NoError(t, os.Symlink("nothing", filepath.Join(dir, "b")))
		_, err := Load(dir)
		assert.EqualError(t, err, "loading signing keys from "+dir+": stat "+filepath.Join(dir, "b")+": no such file or directory")
	})
}

func TestSourceFollowsAMountedSecret(t *testing.T) {
	dir := t.TempDir()
	var log bytes.Buffer
	mount(t, dir, "..2026_01", map[string]string{"current": "a", "a": first})
	s, err := NewSource(dir, slog.New(slog.NewTextHandler(&log, nil)))
	require.NoError(t, err)
	lines := func() int { return strings.Count(log.String(), "\n") }

	s.reload()
	assert.Equal(t, keys("a", "a", first), s.Keys())
	assert.Empty(t, log.String(), "nothing has changed")

	mount(t, dir, "..2026_02", map[string]string{"current": "b", "a": first, "b": second})
	s.reload()
	assert.Equal(t, keys("b", "a", first, "b", second), s.Keys())
	assert.Contains(t, log.String(), `msg="signing keys reloaded" current=b keys=2`)
	assert.Equal(t, 1, lines())

	mount(t, dir, "..2026_03", map[string]string{"current": "c", "a": first, "b": second})
	for range 3 {
		s.reload()
	}
	assert.Equal(t, keys("b", "a", first, "b", second), s.Keys(), "the last good ones")
	assert.Contains(t, log.String(), `msg="signing keys not reloaded, the last good ones stay" error="loading signing keys from `)
	assert.Equal(t, 2, lines(), "said once")

	mount(t, dir, "..2026_04", map[string]string{"current": "b", "a": first, "b": second})
	s.reload()
	s.reload()
	assert.Contains(t, log.String(), `msg="signing keys are readable again"`)
	assert.Equal(t, 3, lines())
	assert.NotContains(t, log.String(), first)
	assert.NotContains(t, log.String(), second)
}

func TestSourceTakesNoBadKeysToBeginWith(t *testing.T) {
	_, err := NewSource(write(t, t.TempDir(), map[string]string{"current": "a"}), slog.New(slog.DiscardHandler))
	assert.ErrorContains(t, err, "file current must hold")
}

func TestSourceWaitsForKeysThatAreStillToBeMounted(t *testing.T) {
	dir := t.TempDir()
	var log bytes.Buffer
	mount(t, dir, "..2026_01", nil)
	s, err := NewSource(dir, slog.New(slog.NewTextHandler(&log, nil)))
	require.NoError(t, err)
	s.reload()
	s.reload()
	assert.Equal(t, 1, strings.Count(log.String(), "\n"), "said once: %s", &log)
	assert.Contains(t, log.String(), `msg="no signing keys are mounted yet, waiting for them" dir=`+dir)
	assert.Error(t, s.Ready())
	assert.Empty(t, s.Keys())
	over, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("not for ever"))
	assert.EqualError(t, s.Await(over), "waiting for signing keys in "+dir+": not for ever")

	mount(t, dir, "..2026_02", map[string]string{"current": "a", "a": first})
	s.reload()
	require.NoError(t, s.Await(t.Context()))
	require.NoError(t, s.Ready())
	assert.Equal(t, keys("a", "a", first), s.Keys())
	assert.Contains(t, log.String(), `msg="signing keys reloaded" current=a keys=1`)

	mount(t, dir, "..2026_03", nil)
	s.reload()
	assert.Equal(t, keys("a", "a", first), s.Keys(), "the last good ones")
}

func TestSourceRunReloadsUntilItsContextIsDone(t *testing.T) {
	dir := write(t, t.TempDir(), map[string]string{"current": "a", "a": first})
	s, err := NewSource(dir, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	clock := clocktesting.NewFakeClock(s.clock.Now())
	s.clock = clock
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Run(ctx)
	}()
	write(t, dir, map[string]string{"b": second})

	assert.Eventually(t, func() bool {
		clock.Step(reloadInterval)
		return len(s.Keys().Secrets) == 2
	}, waitFor, waitFor/1000)
	cancel()
	<-done
}
