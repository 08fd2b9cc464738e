package tools

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// progressInterval is the time between two lines of progress.
const progressInterval = 10 * time.Second

// store keeps the builds of one module. The folder base/key is complete or absent: a build grows
// beside it and is renamed when done, so that a killed one leaves nothing that is taken for it.
type store struct {
	base    string
	key     string
	compile func(ctx context.Context, out string, log *buildLog) error
}

func (s store) ensure(ctx context.Context, w io.Writer, m Module) (string, error) {
	dir := filepath.Join(s.base, s.key)
	if Missing(dir, m.Binaries) == nil {
		return dir, nil
	}
	if err := os.MkdirAll(s.base, 0o755); err != nil {
		return "", fmt.Errorf("making the cache: %w", err)
	}
	held, err := lock(ctx, dir+".lock", func(holder string) {
		fmt.Fprintf(w, "%s: waiting for %s, which is building the same\n", m.Name, holder)
	})
	if err != nil {
		return "", err
	}
	defer held.Close()
	if Missing(dir, m.Binaries) == nil {
		return dir, nil
	}
	if err := s.build(ctx, w, m, dir); err != nil {
		return "", err
	}
	return dir, nil
}

// build fills dir. Its caller holds the lock.
func (s store) build(ctx context.Context, w io.Writer, m Module, dir string) error {
	if err := s.removeLeftovers(dir); err != nil {
		return fmt.Errorf("removing an unfinished build: %w", err)
	}
	growing, err := os.MkdirTemp(s.base, s.key+".unfinished-*")
	if err != nil {
		return fmt.Errorf("making a folder to build in: %w", err)
	}
	defer os.RemoveAll(growing) // nothing is left of it after the rename
	started := time.Now()
	fmt.Fprintf(w, "%s: building %s, once, %s\n", m.Name, strings.Join(m.Binaries, " and "), m.Takes)
	if err := s.compileWithProgress(ctx, w, m, growing); err != nil {
		return err
	}
	for from, to := range m.Rename {
		if err := os.Rename(filepath.Join(growing, from), filepath.Join(growing, to)); err != nil {
			return fmt.Errorf("naming %s: %w", to, err)
		}
	}
	if missing := Missing(growing, m.Binaries); missing != nil {
		return fmt.Errorf("the build gave no %s", strings.Join(missing, " and no "))
	}
	// Tests that drop root's rights run the binaries too; os.MkdirTemp gave the folder to its owner alone.
	if err := os.Chmod(growing, 0o755); err != nil {
		return fmt.Errorf("opening the build to all users: %w", err)
	}
	if err := os.Rename(growing, dir); err != nil {
		return fmt.Errorf("moving the build to its place: %w", err)
	}
	fmt.Fprintf(w, "%s: built in %s: %s\n", m.Name, time.Since(started).Round(time.Second), dir)
	return nil
}

// compileWithProgress alone writes to w while the compiler runs, so that w needs no lock.
func (s store) compileWithProgress(ctx context.Context, w io.Writer, m Module, out string) error {
	log := &buildLog{}
	done := make(chan error, 1)
	started := time.Now()
	go func() { done <- s.compile(ctx, out, log) }()
	ticker := time.NewTicker(progressInterval)
	defer ticker.Stop()
	for {
		select {
		case err := <-done:
			return err
		case <-ticker.C:
			fmt.Fprintf(w, "%s: %s, %s\n", m.Name, time.Since(started).Round(time.Second), log.progress())
		}
	}
}

// removeLeftovers clears what killed builds left, and a finished one from which somebody, such as a
// cleaner of old files, took a binary.
func (s store) removeLeftovers(dir string) error {
	unfinished, err := filepath.Glob(filepath.Join(s.base, s.key+".unfinished-*"))
	if err != nil {
		return err
	}
	for _, leftover := range append(unfinished, dir) {
		if err := os.RemoveAll(leftover); err != nil {
			return err
		}
	}
	return nil
}

// Missing returns those of the binaries that dir does not have as executable files.
func Missing(dir string, binaries []string) []string {
	var missing []string
	for _, name := range binaries {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || !info.Mode().IsRegular() || info.Mode().Perm()&0o111 == 0 {
			missing = append(missing, name)
		}
	}
	return missing
}
