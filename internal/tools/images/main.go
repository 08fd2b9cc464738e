// Command images builds the images of webhook and watcher from the checkout, as OCI layouts, without a daemon and with
// nothing from a registry. One commit gives one digest, wherever it is checked out:
//
//	images --source=CHECKOUT --licences=FOLDER --out=FOLDER
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/ko/pkg/build"
	"github.com/spf13/pflag"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "images:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	set := pflag.NewFlagSet("images", pflag.ContinueOnError)
	source := set.String("source", "", "`folder` of the checkout")
	licences := set.String("licences", "", "`folder` with a folder of licences for each program")
	out := set.String("out", "", "`folder` that is made: the layouts, and in sbom the SBOMs")
	if err := set.Parse(args); err != nil {
		return err
	}
	if *source == "" || *licences == "" || *out == "" || set.NArg() > 0 {
		return errors.New("--source, --licences and --out are all needed, and nothing else")
	}
	// ko logs what git shows as changed, once for each build; what went wrong is in its errors.
	slog.SetDefault(slog.New(slog.DiscardHandler))
	c, err := readCommit(ctx, *source)
	if err != nil {
		return err
	}
	if info, err := os.Stat(filepath.Join(*source, ".git")); err == nil && !info.IsDir() {
		fmt.Fprintln(os.Stderr, "images: go can't read the version from a git worktree: a clone of this commit gives another digest")
	}
	// What an earlier build left would be another image of the same layout.
	if err := os.RemoveAll(*out); err != nil {
		return fmt.Errorf("clearing %s: %w", *out, err)
	}
	for _, program := range []string{"watcher", "webhook"} {
		fmt.Fprintf(os.Stderr, "images: building %s %s\n", program, c.version)
		digest, err := image(ctx, c, program, filepath.Join(*licences, program), *out)
		if err != nil {
			return fmt.Errorf("building the image of %s: %w", program, err)
		}
		fmt.Printf("%s  %s  %s\n", program, c.version, digest)
	}
	return nil
}

// image builds one program's image for all platforms, and returns its digest.
func image(ctx context.Context, c commit, program, licences, out string) (string, error) {
	base, err := baseOf(licences, c)
	if err != nil {
		return "", err
	}
	builder, err := build.NewGo(ctx, c.dir, options(base, c, program, filepath.Join(out, "sbom"))...)
	if err != nil {
		return "", err
	}
	built, err := builder.Build(ctx, build.StrictScheme+module+"/cmd/"+program)
	if err != nil {
		return "", err
	}
	index, ok := built.(v1.ImageIndex)
	if !ok {
		return "", fmt.Errorf("ko built a %T, and no index", built)
	}
	digest, err := index.Digest()
	if err != nil {
		return "", err
	}
	_, err = layout.Write(filepath.Join(out, program), mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: index}))
	return digest.String(), err
}
