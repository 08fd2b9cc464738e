package main

import (
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// rootsVariable makes the test binary a process that prints the subjects of the authorities it trusts.
const rootsVariable = "AIRFLOW_REQUEUE_TEST_ROOTS"

func TestPublicAuthoritiesAreTrustedWhereTheHostHasNone(t *testing.T) {
	nothing := t.TempDir()

	subjects := trusted(t, "SSL_CERT_FILE="+filepath.Join(nothing, "none"), "SSL_CERT_DIR="+nothing)

	for _, authority := range []string{"Amazon Root CA 1", "DigiCert Global Root G2", "GTS Root R1", "ISRG Root X1"} { // AWS, Azure, Google, all
		assert.Contains(t, subjects, hex.EncodeToString([]byte(authority)))
	}
}

func TestTheHostsAuthoritiesAreTrustedWhereItHasSome(t *testing.T) {
	server := httptest.NewTLSServer(http.NotFoundHandler())
	server.Close()
	file := filepath.Join(t.TempDir(), "authority.pem")
	require.NoError(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600))

	subjects := trusted(t, "SSL_CERT_FILE="+file, "SSL_CERT_DIR="+t.TempDir())

	assert.Equal(t, hex.EncodeToString(server.Certificate().RawSubject), subjects)
}

// TestChildThatTrusts is the process that trusted asks.
func TestChildThatTrusts(t *testing.T) {
	if os.Getenv(rootsVariable) == "" {
		t.Skip("no parent that asks")
	}
	pool, err := x509.SystemCertPool()
	require.NoError(t, err)
	for _, subject := range pool.Subjects() { //nolint:staticcheck // deprecated, since it leaves out those of some systems; Linux is none
		fmt.Printf("trusts %x\n", subject)
	}
}

// trusted starts a process of this program's packages, which trusts what the environment says from its start on, and returns
// the subjects as DER in hexadecimal, a line each.
func trusted(t *testing.T, environment ...string) string {
	t.Helper()
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestChildThatTrusts$", "-test.v")
	child.Env = append(append(os.Environ(), rootsVariable+"=1"), environment...)
	out, err := child.CombinedOutput()
	require.NoError(t, err, "%s", out)
	var subjects []string
	for line := range strings.Lines(string(out)) {
		if subject, ok := strings.CutPrefix(strings.TrimSpace(line), "trusts "); ok {
			subjects = append(subjects, subject)
		}
	}
	return strings.Join(subjects, "\n")
}
