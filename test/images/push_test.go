package images

import (
	"bufio"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/airflow-requeue/airflow-requeue/internal/tools"
)

// push sends the layout to a registry, by what `make push-images` runs, and compares what that has then.
func push(t *testing.T, l layout) {
	dir, err := tools.Build(t.Context(), t.Output(), tools.Crane())
	require.NoError(t, err)
	crane := filepath.Join(dir, "crane")
	image := serveRegistry(t, crane) + "/airflow-requeue/image:v1"

	command(t, ".", crane, "push", l.dir, image)

	assert.Equal(t, l.index(t).Digest, command(t, ".", crane, "digest", image))
}

// serveRegistry starts a registry on a port of its own, and gives its address.
func serveRegistry(t *testing.T, crane string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), crane, "registry", "serve", "--address=127.0.0.1:0")
	stderr, err := cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for lines := bufio.NewScanner(stderr); lines.Scan(); {
		if _, port, found := strings.Cut(lines.Text(), "serving on port "); found {
			return net.JoinHostPort("127.0.0.1", strings.TrimSpace(port))
		}
	}
	require.Fail(t, "the registry does not say where it serves")
	return ""
}
