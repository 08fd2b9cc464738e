// Package manifests_test applies what manifests/ and certs/ hold to a real API server, and runs the watcher and both
// programs with the rights that they grant.
package manifests_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/airflow-requeue/airflow-requeue/internal/controlplane"
	"github.com/airflow-requeue/airflow-requeue/internal/programs"
	"github.com/airflow-requeue/airflow-requeue/internal/tools"
)

var (
	// servers is the control plane that the tests of this package share.
	servers *controlplane.ControlPlane
	// kustomize is the path of the pinned program.
	kustomize string
	// built are our programs.
	built programs.Built
	// certManager is the folder of cert-manager's programs.
	certManager string
)

func TestMain(m *testing.M) {
	os.Exit(func() int {
		code, err := run(context.Background(), m)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return code
	}())
}

func run(ctx context.Context, m *testing.M) (code int, err error) {
	dir, err := tools.Build(ctx, os.Stderr, tools.Kustomize())
	if err != nil {
		return 0, err
	}
	kustomize = filepath.Join(dir, "kustomize")
	if certManager, err = tools.Build(ctx, os.Stderr, tools.CertManager()); err != nil {
		return 0, err
	}
	folder, err := os.MkdirTemp("", "airflow-requeue-programs-")
	if err != nil {
		return 0, err
	}
	defer func() { _ = os.RemoveAll(folder) }()
	if built, err = programs.Build(ctx, folder, nil, "watcher", "webhook"); err != nil {
		return 0, err
	}
	servers, err = controlplane.Start(ctx, controlplane.Options{APIServerFlags: map[string][]string{
		// As servers before 1.34 may be: informers need the right to list as well.
		"feature-gates": {"WatchList=false,WatchListClient=false"},
		// Nodes have the rights of nodes.
		"authorization-mode": {"Node"}, "enable-admission-plugins": {"NodeRestriction"},
	}})
	if err != nil {
		return 0, err
	}
	defer func() {
		if stopped := servers.Stop(); err == nil {
			err = stopped
		}
	}()
	crds, err := certManagerAPI(ctx)
	if err != nil {
		return 0, err
	}
	if _, err := envtest.InstallCRDs(servers.Config(), envtest.CRDInstallOptions{Paths: crds, ErrorIfPathMissing: true}); err != nil {
		return 0, fmt.Errorf("installing cert-manager's CRDs: %w", err)
	}
	return m.Run(), nil
}

// certManagerAPI is the folder with cert-manager's CRDs, from the module of the release that the manifests are written for.
func certManagerAPI(ctx context.Context) ([]string, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/cert-manager/cert-manager").Output()
	if err != nil {
		return nil, fmt.Errorf("finding cert-manager's module: %w", err)
	}
	return filepath.Glob(filepath.Join(string(bytes.TrimSpace(out)), "deploy", "crds", "*.yaml"))
}
