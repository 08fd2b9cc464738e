package tools

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestWhatIsKeptIsMadeOncePerKey(t *testing.T) {
	t.Setenv(cacheVariable, t.TempDir())
	made := 0
	kept := Kept{Name: "toolbox", Key: "1", Programs: []string{"bin/hammer"}, Takes: "a moment",
		Make: func(_ context.Context, out string, _ io.Writer) error {
			made++
			if err := os.Mkdir(filepath.Join(out, "bin"), 0o755); err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(out, "bin", "hammer"), []byte("#!/bin/sh\n"), 0o700)
		}}

	first, err := Keep(t.Context(), io.Discard, kept)
	require.NoError(t, err)
	again, err := Keep(t.Context(), io.Discard, kept)
	require.NoError(t, err)
	kept.Key = "2"
	other, err := Keep(t.Context(), io.Discard, kept)
	require.NoError(t, err)

	assert.Equal(t, first, again)
	assert.NotEqual(t, first, other)
	assert.Equal(t, 2, made)
}

func TestTheProgressOfAnotherProgramThanGoIsItsLastLine(t *testing.T) {
	log := &buildLog{}
	_, err := fmt.Fprint(log, "Resolved 120 packages\nInstalled 120 packages\n")
	require.NoError(t, err)

	assert.Equal(t, "Installed 120 packages", log.progress())
}
