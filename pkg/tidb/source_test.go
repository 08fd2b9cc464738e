package tidb

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestSource(t *testing.T) {
	file := filepath.Join(t.TempDir(), "connection")
	require.NoError(t, os.WriteFile(file, []byte("\npostgresql://airflow:secret@db/airflow \n"), 0o600))
	empty := filepath.Join(t.TempDir(), "empty")
	require.NoError(t, os.WriteFile(empty, []byte("\n"), 0o600))
	t.Setenv("TEST_CONNECTION", "sqlite:////airflow.db\n")
	t.Setenv("TEST_EMPTY", " ")

	for source, want := range map[Source]string{
		{File: file}:             "postgresql://airflow:secret@db/airflow",
		{Env: "TEST_CONNECTION"}: "sqlite:////airflow.db",
	} {
		url, err := source.URL()
		require.NoError(t, err)
		assert.Equal(t, want, url)
	}
	for source, want := range map[Source]string{
		{}:                            "choosing the metadata database: neither a file nor an environment variable is given; give one",
		{File: file, Env: "TEST_ENV"}: "choosing the metadata database: both a file and an environment variable are given; give one",
		{File: empty}:                 "reading the metadata database's connection URL: the file " + empty + " is empty",
		{File: "/nowhere"}:            "reading the metadata database's connection URL: open /nowhere: no such file or directory",
		{Env: "TEST_EMPTY"}:           "reading the metadata database's connection URL: the environment variable TEST_EMPTY is not set",
	} {
		_, err := source.URL()
		assert.EqualError(t, err, want)
	}
}
