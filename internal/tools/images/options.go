package main

import (
	"context"
	"fmt"
	"os/exec"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/ko/pkg/build"
)

// module is that of the programs; its repository has the same name.
const module = "github.com/airflow-requeue/airflow-requeue"

// user is nobody's account on any node, and the one that the manifests run both programs as.
const user = "65532:65532"

// commit is the checkout, as far as it goes into an image.
type commit struct {
	dir      string
	version  string // as git describe says it
	revision string
	created  v1.Time // the commit's: an image is no younger than what it is made of
}

func readCommit(ctx context.Context, dir string) (commit, error) {
	c := commit{dir: dir}
	var err error
	git := func(args ...string) string {
		if err != nil {
			return ""
		}
		var out []byte
		if out, err = exec.CommandContext(ctx, "git", append([]string{"-C", dir}, args...)...).Output(); err != nil {
			err = fmt.Errorf("asking git for %s: %w", args[0], err)
		}
		return strings.TrimSpace(string(out))
	}
	c.version = git("describe", "--tags", "--always", "--dirty")
	c.revision = git("rev-parse", "HEAD")
	at := git("show", "--no-patch", "--format=%ct", "HEAD")
	if err != nil {
		return c, err
	}
	seconds, err := strconv.ParseInt(at, 10, 64)
	if err != nil {
		return c, fmt.Errorf("reading the time of the commit: %w", err)
	}
	c.created = v1.Time{Time: time.Unix(seconds, 0).UTC()}
	return c, nil
}

// options are ko's for one program. Nothing of the environment goes into a build: neither flags nor the level of a CPU.
func options(base v1.ImageIndex, c commit, program, sboms string) []build.Option {
	local := func(context.Context, string) (name.Reference, build.Result, error) {
		ref, err := name.ParseReference("localhost/licences") // it is in no registry
		return ref, base, err
	}
	set := []build.Option{
		build.WithBaseImages(local),
		build.WithPlatforms("all"), // that base has
		build.WithTrimpath(true),
		build.WithUser(user),
		build.WithCreationTime(c.created),
		build.WithKoDataCreationTime(c.created),
		build.WithSPDX(koVersion()),
		build.WithSBOMDir(sboms),
		build.WithConfig(map[string]build.Config{module + "/cmd/" + program: {
			Env:     []string{"CGO_ENABLED=0", "GOFLAGS=-mod=readonly", "GOWORK=off", "GOAMD64=v1", "GOARM64=v8.0", "GOEXPERIMENT="},
			Flags:   []string{"-buildvcs=true"}, // the SBOM and those who scan the program see which version it is
			Ldflags: []string{"-s", "-w", "-X " + module + "/internal/flags.version=" + c.version},
		}}),
	}
	for key, value := range map[string]string{
		"title":         "airflow-requeue-" + program,
		"source":        "https://" + module,
		"documentation": "https://" + module + "#readme",
		"licenses":      "Apache-2.0",
		"version":       c.version,
		"revision":      c.revision,
		"created":       c.created.Format(time.RFC3339),
	} {
		key = "org.opencontainers.image." + key
		set = append(set, build.WithLabel(key, value), build.WithAnnotation(key, value))
	}
	return set
}

// koVersion is that of the packages which this program is built with.
func koVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	i := slices.IndexFunc(info.Deps, func(m *debug.Module) bool { return m.Path == "github.com/google/ko" })
	if i < 0 {
		return ""
	}
	return info.Deps[i].Version
}
