package tools

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// goBuild builds the tools of the module in dir. What the environment says of proxies and caches holds;
// flags of the user's own could break a foreign module or make it another build than the cache's.
func goBuild(dir, ldflags string) func(ctx context.Context, out string, log *buildLog) error {
	return func(ctx context.Context, out string, log *buildLog) error {
		cmd := exec.CommandContext(ctx, "go", "build", "-v", "-trimpath", "-buildvcs=false",
			"-ldflags", ldflags, "-o", out+string(os.PathSeparator), "tool")
		cmd.Dir = dir
		// Without cgo no C compiler and no C headers are needed; the projects' own releases do the same.
		cmd.Env = append(os.Environ(), "GOFLAGS=-mod=readonly", "GOWORK=off", "CGO_ENABLED=0")
		cmd.Stdout, cmd.Stderr = log, log
		// go stops its compilers when it is interrupted; killed, it would leave them running.
		cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
		cmd.WaitDelay = 10 * time.Second
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("running go build in %s: %w%s", dir, err, log.said())
		}
		return nil
	}
}

// buildLog takes what `go build -v` prints: it counts the packages and downloads, which each have a
// line, and keeps all other lines, which are errors.
type buildLog struct {
	mu         sync.Mutex
	unfinished []byte
	packages   int
	downloads  int
	rest       bytes.Buffer
}

func (l *buildLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.unfinished = append(l.unfinished, p...)
	for {
		line, after, found := bytes.Cut(l.unfinished, []byte("\n"))
		if !found {
			return len(p), nil
		}
		l.take(string(line))
		l.unfinished = after
	}
}

func (l *buildLog) take(line string) {
	switch {
	case strings.HasPrefix(line, "go: downloading "):
		l.downloads++
	case line != "" && !strings.ContainsAny(line, " \t:#"): // an import path
		l.packages++
	default:
		l.rest.WriteString(line + "\n")
	}
}

// progress is what go has counted, or, of another program, the last line.
func (l *buildLog) progress() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.downloads+l.packages > 0 {
		return fmt.Sprintf("%d modules downloaded, %d packages compiled", l.downloads, l.packages)
	}
	said := strings.TrimSpace(l.rest.String())
	return cmp.Or(said[strings.LastIndex(said, "\n")+1:], "nothing to show yet")
}

// said is what was not progress, on lines of its own.
func (l *buildLog) said() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	said := strings.TrimSpace(l.rest.String() + string(l.unfinished))
	if said == "" {
		return ""
	}
	return "\n" + said
}
