package tools

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
)

// Kept is a folder that takes long to make, and is made once: of something else than a Go module.
type Kept struct {
	// Name is its folder in the cache and stands before every line of progress.
	Name string
	// Key is all that goes into it: another key is another folder.
	Key string
	// Programs must be in it when it is made, as executable files.
	Programs []string
	// Takes says how long that takes, for people.
	Takes string
	// Make fills the folder out, which is moved to its place afterwards. The last line in the log is shown as progress,
	// all of it when Make fails.
	Make func(ctx context.Context, out string, log io.Writer) error
}

// Keep returns the folder, which it makes when the cache has none of this key, Go version and platform: see Build.
func Keep(ctx context.Context, w io.Writer, k Kept) (string, error) {
	cache, err := cacheDir()
	if err != nil {
		return "", fmt.Errorf("making %s: %w", k.Name, err)
	}
	s := store{
		base:    filepath.Join(cache, k.Name),
		key:     key([]byte(k.Key), nil, ""),
		compile: func(ctx context.Context, out string, log *buildLog) error { return k.Make(ctx, out, log) },
	}
	dir, err := s.ensure(ctx, w, Module{Name: k.Name, Binaries: k.Programs, Takes: k.Takes})
	if err != nil {
		return "", fmt.Errorf("making %s: %w", k.Name, err)
	}
	return dir, nil
}
