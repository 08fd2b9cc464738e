// Package chart_test installs charts/ with the real helm on a real API server, runs what is installed, upgrades it and
// takes it away again.
package chart_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/airflow-requeue/airflow-requeue/internal/cluster"
	"github.com/airflow-requeue/airflow-requeue/internal/controlplane"
	"github.com/airflow-requeue/airflow-requeue/internal/programs"
	"github.com/airflow-requeue/airflow-requeue/internal/tools"
)

// What the tests of this package share.
var (
	servers   *controlplane.ControlPlane
	built     programs.Built // ours
	kustomize string         // the paths of the pinned programs
	helm      string
	kubectl   string
)

func TestMain(m *testing.M) {
	os.Exit(func() int {
		folder, err := os.MkdirTemp("", "airflow-requeue-chart-")
		if err != nil {
			panic(err)
		}
		defer func() { _ = os.RemoveAll(folder) }()
		network, err := cluster.NewNetwork(folder)
		if err != nil {
			panic(err)
		}
		defer func() { _ = network.Close() }()
		shared := &programs.Shared{Programs: []string{"watcher", "webhook"}, Options: controlplane.Options{APIServerFlags: network.APIServerFlags()}}
		shared.Prepare = func(ctx context.Context) error {
			servers, built = shared.Servers, shared.Built
			return prepare(ctx, network)
		}
		return shared.Main(m)
	}())
}

func prepare(ctx context.Context, network *cluster.Network) error {
	if err := getTools(ctx); err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(servers.Config())
	if err != nil {
		return err
	}
	network.Connect(client)
	crds, err := foreign(ctx)
	if err != nil {
		return err
	}
	if _, err := envtest.InstallCRDs(servers.Config(), envtest.CRDInstallOptions{Paths: crds, ErrorIfPathMissing: true}); err != nil {
		return fmt.Errorf("installing others' CRDs: %w", err)
	}
	return nil
}

func getTools(ctx context.Context) error {
	dir, err := tools.Build(ctx, os.Stderr, tools.Kustomize())
	if err != nil {
		return err
	}
	kustomize = filepath.Join(dir, "kustomize")
	if dir, err = tools.Build(ctx, os.Stderr, tools.Helm()); err != nil {
		return err
	}
	helm, kubectl = filepath.Join(dir, "helm"), filepath.Join(dir, "kubectl")
	return nil
}

// foreign are the files with the CRDs of cert-manager and prometheus-operator that the chart has objects of, from their modules.
func foreign(ctx context.Context) (paths []string, err error) {
	for _, from := range []struct {
		workspace, module, folder string
		files                     []string
	}{
		{".", "github.com/cert-manager/cert-manager", "deploy/crds", []string{"cert-manager.io_certificates.yaml", "cert-manager.io_issuers.yaml"}},
		{filepath.Join("..", "..", "internal", "tools", "prometheus-operator"), "github.com/prometheus-operator/prometheus-operator", "example/prometheus-operator-crd", []string{"monitoring.coreos.com_podmonitors.yaml"}},
	} {
		download := exec.CommandContext(ctx, "go", "mod", "download", "-json", from.module) // no program needs its code
		download.Dir = from.workspace
		out, err := download.Output()
		var module struct{ Dir string }
		if err = errors.Join(err, json.Unmarshal(out, &module)); err != nil {
			return nil, fmt.Errorf("finding module %s: %w", from.module, err)
		}
		for _, file := range from.files {
			paths = append(paths, filepath.Join(module.Dir, from.folder, file))
		}
	}
	return paths, nil
}
