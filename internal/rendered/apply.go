package rendered

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
)

// Apply writes objects as `kubectl apply --server-side --validate=strict` does, warnings being errors. dryRun writes nothing.
func Apply(t testing.TB, cfg *rest.Config, all Objects, dryRun ...string) {
	t.Helper()
	cfg = rest.CopyConfig(cfg)
	var warned warnings
	cfg.WarningHandler = &warned
	s, err := newServer(cfg)
	require.NoError(t, err)
	for _, u := range all {
		require.NoError(t, s.apply(t.Context(), u, dryRun))
	}
	require.Empty(t, warned, "the API server warns")
}

type warnings []string

// HandleWarningHeader is rest.WarningHandler's.
func (w *warnings) HandleWarningHeader(_ int, _, text string) { *w = append(*w, text) }

// server applies objects.
type server struct {
	dynamic dynamic.Interface
	mapper  meta.RESTMapper
}

func newServer(cfg *rest.Config) (*server, error) {
	client, err := dynamic.NewForConfig(cfg)
	if err != nil {
		return nil, err
	}
	lookup, err := discovery.NewDiscoveryClientForConfig(cfg)
	if err != nil {
		return nil, err
	}
	groups, err := restmapper.GetAPIGroupResources(lookup)
	if err != nil {
		return nil, err
	}
	return &server{dynamic: client, mapper: restmapper.NewDiscoveryRESTMapper(groups)}, nil
}

func (s *server) apply(ctx context.Context, u *unstructured.Unstructured, dryRun []string) error {
	gvk := u.GroupVersionKind()
	mapping, err := s.mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
	if err != nil {
		return fmt.Errorf("applying %s %s: %w", u.GetKind(), u.GetName(), err)
	}
	var client dynamic.ResourceInterface = s.dynamic.Resource(mapping.Resource)
	if mapping.Scope.Name() == meta.RESTScopeNameNamespace {
		client = s.dynamic.Resource(mapping.Resource).Namespace(u.GetNamespace())
	}
	body, err := json.Marshal(u.Object)
	if err != nil {
		return err
	}
	_, err = client.Patch(ctx, u.GetName(), types.ApplyPatchType, body,
		metav1.PatchOptions{FieldManager: "test", FieldValidation: metav1.FieldValidationStrict, DryRun: dryRun})
	if err != nil {
		return fmt.Errorf("applying %s %s: %w", u.GetKind(), u.GetName(), err)
	}
	return nil
}
