// Package controlplane gives tests and the demo a real Kubernetes control plane: etcd and
// kube-apiserver, as controller-runtime's envtest runs them. Without KUBEBUILDER_ASSETS it builds both
// from their Go modules, once, so that a machine with Go alone needs nothing else.
package controlplane

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/airflow-requeue/airflow-requeue/internal/tools"
)

// assetsVariable is envtest's own name for the folder of the binaries.
const assetsVariable = "KUBEBUILDER_ASSETS"

// Assets returns a folder with etcd and kube-apiserver: the one that KUBEBUILDER_ASSETS names, else one
// from the cache, which the first call fills in some minutes, with progress on w.
func Assets(ctx context.Context, w io.Writer) (string, error) {
	module := servers()
	given := os.Getenv(assetsVariable)
	if given == "" {
		return tools.Build(ctx, w, module)
	}
	dir, err := filepath.Abs(given)
	if err != nil {
		return "", fmt.Errorf("finding %s=%s: %w", assetsVariable, given, err)
	}
	if missing := tools.Missing(dir, module.Binaries); missing != nil {
		return "", fmt.Errorf("finding %s in %s=%s: no such program there; without %s they are built",
			strings.Join(missing, " and "), assetsVariable, given, assetsVariable)
	}
	return dir, nil
}

func servers() tools.Module {
	return tools.Module{
		Name:     "controlplane",
		Dir:      "internal/controlplane/build",
		Binaries: []string{"kube-apiserver", "etcd"},
		Rename:   map[string]string{"server": "etcd"}, // go.etcd.io/etcd/server/v3
		LDFlags:  versionFlags,
		Takes:    "about 4 minutes on 2 cores",
	}
}

// versionFlags has the API server report the release that it is, as Kubernetes' own builds do: built
// without them it says v0.0.0-master, which clients take for older than any release.
func versionFlags(version func(module string) string) string {
	release := version("k8s.io/kubernetes")
	numbers := strings.SplitN(strings.TrimPrefix(release, "v"), ".", 3)
	if len(numbers) != 3 {
		return ""
	}
	const variables = "k8s.io/component-base/version."
	return fmt.Sprintf("-X %[1]sgitVersion=%[2]s -X %[1]sgitMajor=%[3]s -X %[1]sgitMinor=%[4]s -X %[1]sgitTreeState=clean",
		variables, release, numbers[0], numbers[1])
}
