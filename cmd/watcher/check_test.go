package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/airflow-requeue/airflow-requeue/pkg/preflight"
)

// TestCheckFailsAndSaysWhy has nothing to look at; what it finds where there is something, pkg/preflight tests.
func TestCheckFailsAndSaysWhy(t *testing.T) {
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	require.NoError(t, os.WriteFile(kubeconfig, []byte(`
apiVersion: v1
kind: Config
current-context: nowhere
clusters: [{name: nowhere, cluster: {server: "https://127.0.0.1:1"}}]
users: [{name: nobody, user: {token: s3cret}}]
contexts: [{name: nowhere, context: {cluster: nowhere, user: nobody}}]
`), 0o600))
	t.Setenv("URL", "postgresql://airflow:s3cret@127.0.0.1:1/airflow")
	empty := t.TempDir()
	check := func(more ...string) (said string, err error) {
		var out bytes.Buffer
		err = run(t.Context(), append([]string{"check", "--namespace=airflow", "--lease-namespace=airflow", "--kubeconfig=" + kubeconfig,
			"--database-url-env=URL", "--signing-keys-dir=" + empty}, more...), &out, &out)
		return out.String(), err
	}

	table, err := check()
	assert.EqualError(t, err, "3 of 3 checks failed: signing keys, database, API server")
	assert.Equal(t, 6, strings.Count(table, "FAIL  "), "each with what to do about it:\n%s", table)

	raw, err := check("--output=json")
	assert.EqualError(t, err, "3 of 3 checks failed: signing keys, database, API server")
	var found []preflight.Finding
	require.NoError(t, json.Unmarshal([]byte(raw), &found))
	require.Len(t, found, 3)
	assert.Equal(t, preflight.Finding{Check: "database", State: preflight.Fail,
		Seen: "opening the metadata database (PostgreSQL): nothing listens at the address of the connection URL",
		ToDo: "the connection URL, from --database-url-env=URL, is to name the metadata database that Airflow's scheduler uses, " +
			"and a user who has SELECT on task_instance and alembic_version"}, found[1])
	assert.NotContains(t, table+raw, "s3cret")
}
