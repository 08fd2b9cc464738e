package main

import (
	"bytes"
	"compress/gzip"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const (
	caller = "package main\n\nimport \"os\"\n\nfunc main() { println(os.Getenv(\"HOME\")) }\n"
	idler  = "package main\n\nfunc main() {}\n"
)

func TestAVulnerabilityThatIsCalledFails(t *testing.T) {
	database := serve(t, plantedDatabase())
	var stdout, stderr bytes.Buffer

	err := run(t.Context(), []string{"--database=" + database, "--dir=" + program(t, caller), "./..."}, &stdout, &stderr)

	require.EqualError(t, err, "running govulncheck: exit status 3", stderr.String())
	assert.Contains(t, stdout.String(), "vulnerabilities: as "+database+" knew them at 2026-11-01T00:00:00Z\n")
	assert.Contains(t, stdout.String(), "Vulnerability #1: GO-2026-0001\n")
}

func TestAVulnerabilityThatIsNotCalledDoesNot(t *testing.T) {
	var stdout, stderr bytes.Buffer

	err := run(t.Context(), []string{"--database=" + serve(t, plantedDatabase()), "--dir=" + program(t, idler), "./..."}, &stdout, &stderr)

	require.NoError(t, err, stderr.String())
	assert.Contains(t, stdout.String(), "No vulnerabilities found.\n")
}

func TestAPackageThatCanNotBeReadFails(t *testing.T) {
	var stdout, stderr bytes.Buffer

	err := run(t.Context(), []string{"--database=" + serve(t, plantedDatabase()), "--dir=" + program(t, "package main\n\nbroken"), "./..."}, &stdout, &stderr)

	assert.ErrorContains(t, err, "running govulncheck: exit status 1")
}

func TestWithoutItsDatabaseNothingIsSaidToBeChecked(t *testing.T) {
	closed := httptest.NewServer(http.NotFoundHandler())
	closed.Close()
	for name, c := range map[string]struct{ database, want string }{
		"nobody listens": {closed.URL, " can't be reached: Get "},
		"a proxy refuses": {serve(t, func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "not for you", http.StatusForbidden)
		}), "/index/db.json answers 403 Forbidden\n"},
		"a proxy shows a page": {serve(t, func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte("<html>Log in first</html>"))
		}), " can't be reached: what answers for it is no database of vulnerabilities\n"},
		"a proxy answers with JSON": {serve(t, func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte(`{"error":"blocked"}`))
		}), " can't be reached: what answers for it is no database of vulnerabilities\n"},
	} {
		t.Run(name, func(t *testing.T) {
			args := []string{"--database=" + c.database, "--dir=" + program(t, caller), "./..."}
			var stdout, stderr bytes.Buffer

			require.NoError(t, run(t.Context(), args, &stdout, &stderr))

			assert.Contains(t, stdout.String(), "vulnerabilities: NOT CHECKED: "+c.database)
			assert.Contains(t, stdout.String(), c.want)
			assert.Regexp(t, `\nvulnerabilities: whether any is known of go1\.\S+ and of the 0 modules that \./\.\.\. use is unknown to this run\n$`, stdout.String())
			assert.NotContains(t, stdout.String(), "No vulnerabilities found")

			err := run(t.Context(), append([]string{"--require-database"}, args...), &stdout, &stderr)
			assert.EqualError(t, err, "nothing was checked, and --require-database is set")
		})
	}
}

// program gives a module of one program, without dependencies.
func program(t *testing.T, source string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range map[string]string{"go.mod": "module example.com/program\n\ngo 1.26.0\n", "main.go": source} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
	}
	return dir
}

// plantedDatabase knows of one vulnerability, of a function of the standard library, in every version of Go. See
// https://go.dev/doc/security/vuln/database.
func plantedDatabase() http.HandlerFunc {
	files := map[string]string{
		"/index/db.json":      `{"modified":"2026-11-01T00:00:00Z"}`,
		"/index/modules.json": `[{"path":"stdlib","vulns":[{"id":"GO-2026-0001","modified":"2026-11-01T00:00:00Z"}]}]`,
		"/ID/GO-2026-0001.json": `{"schema_version":"1.3.1","id":"GO-2026-0001","modified":"2026-11-01T00:00:00Z","published":"2026-11-01T00:00:00Z",
			"summary":"A planted one","details":"It is none.","affected":[{"package":{"name":"stdlib","ecosystem":"Go"},
			"ranges":[{"type":"SEMVER","events":[{"introduced":"0"}]}],
			"ecosystem_specific":{"imports":[{"path":"os","symbols":["Getenv"]}]}}],
			"database_specific":{"url":"https://pkg.go.dev/vuln/GO-2026-0001","review_status":"REVIEWED"}}`,
	}
	return func(w http.ResponseWriter, r *http.Request) {
		name, zipped := strings.CutSuffix(r.URL.Path, ".gz")
		content, ok := files[name]
		switch {
		case !ok:
			http.NotFound(w, r)
		case zipped:
			z := gzip.NewWriter(w)
			_, _ = z.Write([]byte(content))
			_ = z.Close()
		default:
			_, _ = w.Write([]byte(content))
		}
	}
}

func serve(t *testing.T, handler http.HandlerFunc) string {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return server.URL
}
