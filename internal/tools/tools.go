// Package tools builds programs that the project's tests and checks run, from Go modules alone. Each
// comes from a nested module, whose go.mod pins it and whose go.sum proves it, and is kept in a cache
// outside the checkout.
package tools

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// Module is a nested module of the checkout. The tool lines in its go.mod name what is built of it.
type Module struct {
	// Name is the module's folder in the cache and stands before every line of progress.
	Name string
	// Dir is where its go.mod is, from the root of the checkout.
	Dir string
	// Binaries are the programs that a build of it must give.
	Binaries []string
	// Rename maps the name that `go build` gives a program to the one in Binaries.
	Rename map[string]string
	// LDFlags gives flags for the linker; version looks up what go.mod requires of a module. May be nil.
	LDFlags func(version func(module string) string) string
	// Takes says how long a build takes the first time, for people.
	Takes string
}

// Lint is golangci-lint, for `make lint`.
func Lint() Module {
	return Module{
		Name: "golangci-lint", Dir: "internal/tools/golangci-lint",
		Binaries: []string{"golangci-lint"}, Takes: "about 3 minutes on 2 cores",
	}
}

// Kustomize renders the manifests in their tests. The program and not its library: the library would
// bring a dozen modules into the project's own go.sum, for tests alone.
func Kustomize() Module {
	return Module{
		Name: "kustomize", Dir: "internal/tools/kustomize",
		Binaries: []string{"kustomize"}, Takes: "about half a minute on 2 cores",
	}
}

// CertManager is cert-manager's controller and cainjector, which certificates of the manifests are tested with.
func CertManager() Module {
	return Module{
		Name: "cert-manager", Dir: "internal/tools/cert-manager",
		Binaries: []string{"controller", "cainjector"}, Takes: "about 3 minutes on 2 cores",
	}
}

// Govulncheck looks for known vulnerabilities, for `make vulnerabilities`.
func Govulncheck() Module {
	return Module{
		Name: "govulncheck", Dir: "internal/tools/govulncheck",
		Binaries: []string{"govulncheck"}, Takes: "about half a minute on 2 cores",
	}
}

// GoLicenses reads the licences of dependencies, for `make licences` and `make images`.
func GoLicenses() Module {
	return Module{
		Name: "go-licenses", Dir: "internal/tools/go-licenses",
		Binaries: []string{"go-licenses"}, Takes: "about half a minute on 2 cores",
	}
}

// Actionlint checks the workflows, for `make lint`.
func Actionlint() Module {
	return Module{
		Name: "actionlint", Dir: "internal/tools/actionlint",
		Binaries: []string{"actionlint"}, Takes: "about half a minute on 2 cores",
	}
}

// Crane pushes images to a registry, for `make push-images`.
func Crane() Module {
	return Module{
		Name: "crane", Dir: "internal/tools/crane",
		Binaries: []string{"crane"}, Takes: "about a minute on 2 cores",
	}
}

// All are the tools that come from a module of their own, by the name of their program.
func All() []Module {
	return []Module{Actionlint(), CertManager(), Crane(), GoLicenses(), Lint(), Govulncheck(), Helm(), Kustomize()}
}

// Helm installs the chart in its tests, and kubectl does what a user does beside it: programs, for the same reason.
func Helm() Module {
	return Module{
		Name: "helm", Dir: "internal/tools/helm",
		Binaries: []string{"helm", "kubectl"}, Takes: "about 4 minutes on 2 cores",
	}
}

// Build returns the folder with the module's binaries. It builds them when the cache has none of this
// go.mod, go.sum, Go version and platform, and says on w how far it is. Builds that race wait for one
// another. The cache is the user's, or where AIRFLOW_REQUEUE_CACHE says.
func Build(ctx context.Context, w io.Writer, m Module) (string, error) {
	root, err := checkout()
	if err != nil {
		return "", fmt.Errorf("building %s: %w", m.Name, err)
	}
	cache, err := cacheDir()
	if err != nil {
		return "", fmt.Errorf("building %s: %w", m.Name, err)
	}
	dir := filepath.Join(root, filepath.FromSlash(m.Dir))
	goMod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	if err != nil {
		return "", fmt.Errorf("building %s: reading what to build: %w", m.Name, err)
	}
	goSum, err := os.ReadFile(filepath.Join(dir, "go.sum"))
	if err != nil {
		return "", fmt.Errorf("building %s: reading what to build: %w", m.Name, err)
	}
	flags := linkerFlags(m, goMod)
	s := store{
		base:    filepath.Join(cache, m.Name),
		key:     key(goMod, goSum, flags),
		compile: goBuild(dir, flags),
	}
	built, err := s.ensure(ctx, w, m)
	if err != nil {
		return "", fmt.Errorf("building %s: %w", m.Name, err)
	}
	return built, nil
}

// key names a build by all that goes into it.
func key(goMod, goSum []byte, flags string) string {
	h := sha256.New()
	for _, part := range []string{string(goMod), string(goSum), flags, runtime.Version(), runtime.GOOS, runtime.GOARCH} {
		fmt.Fprintf(h, "%d:%s", len(part), part)
	}
	return hex.EncodeToString(h.Sum(nil))[:16]
}

func linkerFlags(m Module, goMod []byte) string {
	flags := "-s -w"
	if m.LDFlags == nil {
		return flags
	}
	return flags + " " + m.LDFlags(func(module string) string {
		for line := range strings.Lines(string(goMod)) {
			fields := strings.Fields(strings.TrimPrefix(strings.TrimSpace(line), "require "))
			if len(fields) >= 2 && fields[0] == module && strings.HasPrefix(fields[1], "v") {
				return fields[1]
			}
		}
		return ""
	})
}
