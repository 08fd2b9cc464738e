package tools

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// childVariable makes the test binary a process that builds into the folder it names, until it is killed.
const childVariable = "AIRFLOW_REQUEUE_TEST_CHILD"

func TestABuildIsMadeOnce(t *testing.T) {
	var builds atomic.Int32
	s := fakeStore(t.TempDir(), func(out string) error {
		builds.Add(1)
		return writeTool(out)
	})
	var said strings.Builder

	first, err := s.ensure(t.Context(), &said, fakeModule())
	require.NoError(t, err)
	second, err := s.ensure(t.Context(), io.Discard, fakeModule())
	require.NoError(t, err)

	assert.Equal(t, first, second)
	assert.FileExists(t, filepath.Join(first, "hammer"))
	assert.EqualValues(t, 1, builds.Load())
	assert.Equal(t, "toolbox: building hammer, once, a moment\ntoolbox: built in 0s: "+first+"\n", said.String())
}

func TestOfTwoRacingBuildsOneWaitsForTheOther(t *testing.T) {
	base := t.TempDir()
	building, waits := make(chan struct{}), make(chan struct{})
	var builds atomic.Int32
	s := fakeStore(base, func(out string) error {
		builds.Add(1)
		close(building)
		<-waits
		return writeTool(out)
	})
	firstDone := make(chan error)
	go func() {
		_, err := s.ensure(t.Context(), io.Discard, fakeModule())
		firstDone <- err
	}()
	<-building
	said := &firstWords{spoken: waits}

	dir, err := s.ensure(t.Context(), said, fakeModule())

	require.NoError(t, err)
	require.NoError(t, <-firstDone)
	assert.EqualValues(t, 1, builds.Load())
	assert.FileExists(t, filepath.Join(dir, "hammer"))
	assert.Regexp(t, fmt.Sprintf(`^toolbox: waiting for process %d since [0-9:]{8}, which is building the same\n$`, os.Getpid()), said.words)
}

func TestAWaitEndsWithItsContext(t *testing.T) {
	base := t.TempDir()
	held, err := lock(t.Context(), filepath.Join(base, "key.lock"), func(string) {})
	require.NoError(t, err)
	defer held.Close()
	ctx, cancel := context.WithCancel(t.Context())
	s := fakeStore(base, writeTool)

	_, err = s.ensure(ctx, writerFunc(func([]byte) { cancel() }), fakeModule())

	assert.ErrorIs(t, err, context.Canceled)
}

func TestABuildThatDidNotEndWellLeavesNothing(t *testing.T) {
	for name, test := range map[string]struct {
		compile func(out string) error
		want    string
	}{
		"it failed":             {func(out string) error { return errors.Join(writeTool(out), errors.New("no space left")) }, "no space left"},
		"it gave no binary":     {func(string) error { return nil }, "the build gave no hammer"},
		"it gave half a binary": {func(out string) error { return os.WriteFile(filepath.Join(out, "hammer"), nil, 0o600) }, "the build gave no hammer"},
	} {
		t.Run(name, func(t *testing.T) {
			base := t.TempDir()

			_, err := fakeStore(base, test.compile).ensure(t.Context(), io.Discard, fakeModule())

			require.EqualError(t, err, test.want)
			assert.Equal(t, []string{"key.lock"}, names(t, base))
		})
	}
}

func TestAKilledBuildIsMadeAgain(t *testing.T) {
	base := t.TempDir()
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestChildToBeKilled$")
	child.Env = append(os.Environ(), childVariable+"="+base)
	stdout, err := child.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, child.Start())
	line, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "built by half\n", line)
	require.NoError(t, child.Process.Kill())
	require.Error(t, child.Wait())
	require.Len(t, names(t, base), 2, "the lock and what is unfinished")

	dir, err := fakeStore(base, writeTool).ensure(t.Context(), io.Discard, fakeModule())

	require.NoError(t, err)
	assert.FileExists(t, filepath.Join(dir, "hammer"))
	assert.Equal(t, []string{"key", "key.lock"}, names(t, base))
}

// TestChildToBeKilled is the process that TestAKilledBuildIsMadeAgain kills.
func TestChildToBeKilled(t *testing.T) {
	base := os.Getenv(childVariable)
	if base == "" {
		t.Skip("no parent that kills it")
	}
	_, err := fakeStore(base, func(out string) error {
		if err := writeTool(out); err != nil {
			return err
		}
		fmt.Println("built by half")
		select {} // never: the parent kills this process
	}).ensure(t.Context(), io.Discard, fakeModule())
	require.NoError(t, err)
}

func TestABuildThatLostABinaryIsMadeAgain(t *testing.T) {
	s := fakeStore(t.TempDir(), writeTool)
	dir, err := s.ensure(t.Context(), io.Discard, fakeModule())
	require.NoError(t, err)
	require.NoError(t, os.Remove(filepath.Join(dir, "hammer")))

	_, err = s.ensure(t.Context(), io.Discard, fakeModule())

	require.NoError(t, err)
	assert.FileExists(t, filepath.Join(dir, "hammer"))
}

func TestABinaryCanBeRenamed(t *testing.T) {
	module := fakeModule()
	module.Binaries, module.Rename = []string{"mallet"}, map[string]string{"hammer": "mallet"}

	dir, err := fakeStore(t.TempDir(), writeTool).ensure(t.Context(), io.Discard, module)

	require.NoError(t, err)
	assert.Equal(t, []string{"mallet"}, names(t, dir))
}

func fakeModule() Module {
	return Module{Name: "toolbox", Binaries: []string{"hammer"}, Takes: "a moment"}
}

func fakeStore(base string, compile func(out string) error) store {
	return store{base: base, key: "key", compile: func(_ context.Context, out string, _ *buildLog) error { return compile(out) }}
}

func writeTool(out string) error {
	return os.WriteFile(filepath.Join(out, "hammer"), []byte("#!/bin/sh\n"), 0o700)
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

// firstWords closes a channel when something is first written to it.
type firstWords struct {
	spoken chan struct{}
	once   sync.Once
	words  string
}

func (f *firstWords) Write(p []byte) (int, error) {
	f.words += string(p)
	f.once.Do(func() { close(f.spoken) })
	return len(p), nil
}

type writerFunc func(p []byte)

func (f writerFunc) Write(p []byte) (int, error) {
	f(p)
	return len(p), nil
}
