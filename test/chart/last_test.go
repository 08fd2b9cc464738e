package chart_test

import (
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/airflow-requeue/airflow-requeue/internal/programs"
	"github.com/airflow-requeue/airflow-requeue/internal/tools"
)

// version is a build of the programs, and the manifests that came with it.
type version struct {
	built     programs.Built
	manifests string
}

// thisVersion is the checkout's.
func thisVersion(t *testing.T) version {
	t.Helper()
	return version{built, folder(t)}
}

// lastVersion is the one before, whose commit ../upgrade/LAST names: built from the checkout's own history, once. A clone
// that has no history skips.
func lastVersion(t *testing.T) version {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("..", "upgrade", "LAST"))
	require.NoError(t, err)
	commit := strings.TrimSpace(string(content))
	if err := exec.CommandContext(t.Context(), "git", "cat-file", "-e", commit+"^{commit}").Run(); err != nil {
		shallow, asked := exec.CommandContext(t.Context(), "git", "rev-parse", "--is-shallow-repository").Output()
		require.NoError(t, asked, "the last version is in the checkout's history, and this is no clone")
		if strings.TrimSpace(string(shallow)) == "true" {
			t.Skipf("the last version, %s, is not in this shallow clone: git fetch --unshallow", commit)
		}
		require.NoError(t, err, "no commit %s, which test/upgrade/LAST names", commit)
	}
	dir, err := tools.Keep(t.Context(), os.Stderr, tools.Kept{Name: "last-version", Key: commit, Programs: []string{"watcher", "webhook"},
		Takes: "about a minute on 2 cores", Make: func(ctx context.Context, out string, log io.Writer) error { return makeVersion(ctx, commit, out, log) }})
	require.NoError(t, err)
	return version{programs.Built{"watcher": filepath.Join(dir, "watcher"), "webhook": filepath.Join(dir, "webhook")}, filepath.Join(dir, "source", "manifests")}
}

// makeVersion unpacks a commit into out/source, and builds its programs beside it.
func makeVersion(ctx context.Context, commit, out string, log io.Writer) error {
	source := filepath.Join(out, "source")
	if err := os.Mkdir(source, 0o755); err != nil {
		return err
	}
	root, err := exec.CommandContext(ctx, "git", "rev-parse", "--show-toplevel").Output()
	if err != nil {
		return err
	}
	archive := exec.CommandContext(ctx, "git", "-C", strings.TrimSpace(string(root)), "archive", "--output="+filepath.Join(out, "source.tar"), commit)
	unpack := exec.CommandContext(ctx, "tar", "-xf", filepath.Join(out, "source.tar"), "-C", source)
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", out+string(filepath.Separator), "./cmd/watcher", "./cmd/webhook")
	build.Dir = source
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	for _, cmd := range []*exec.Cmd{archive, unpack, build} {
		cmd.Stdout, cmd.Stderr = log, log
		if err := cmd.Run(); err != nil {
			return err
		}
	}
	return os.Remove(filepath.Join(out, "source.tar"))
}
