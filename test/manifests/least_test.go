package manifests_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/airflow-requeue/airflow-requeue/internal/programs"
	"github.com/airflow-requeue/airflow-requeue/pkg/watcher"
)

func TestTheWatcherNeedsAllOfItsRightsAndNoOthers(t *testing.T) {
	testLeastRights(t, "watcher", func(ctx context.Context, s *site) error {
		stop, err := s.lead(ctx)
		if err == nil {
			err = s.replace(ctx)
		}
		if err == nil {
			err = s.report(ctx)
		}
		if stopped := stop(); err == nil {
			err = stopped
		}
		if err == nil {
			err = s.release(ctx)
		}
		if err == nil {
			err = s.fill(ctx)
		}
		if err == nil {
			err = s.check(ctx)
		}
		return err
	})
}

func TestTheWebhookNeedsAllOfItsRightsAndNoOthers(t *testing.T) {
	testLeastRights(t, "webhook", func(ctx context.Context, s *site) error {
		_, err := s.account.CoordinationV1().Leases(s.Namespace).Get(ctx, s.Namespace, metav1.GetOptions{})
		if !apierrors.IsNotFound(err) {
			return fmt.Errorf("reading the Lease that nobody has made: %w", err)
		}
		return s.release(ctx)
	})
}

func TestTheReleaseNeedsAllOfItsRightsAndNoOthers(t *testing.T) {
	testLeastRights(t, "release", func(ctx context.Context, s *site) error {
		programs.Register(t, s.Client, programs.Configuration("https://127.0.0.1:1/mutate", nil, s.Namespace))
		return s.releaseBy(ctx, func(opts watcher.ReleaseOptions) (watcher.Released, error) {
			return watcher.Uninstall(ctx, s.account, s.Namespace, opts)
		})
	})
}

// testLeastRights has an account do its work with its rights, and once more without each of them.
func testLeastRights(t *testing.T, component string, work func(context.Context, *site) error) {
	t.Helper()
	t.Run("with all rights nothing is refused", func(t *testing.T) {
		t.Parallel()
		ctx, s := newSite(t, "airflow-requeue-"+component)
		s.install(t, moved(t, s.Namespace, s.Namespace))
		require.NoError(t, work(ctx, s))
		require.Empty(t, s.refusals.list())
	})
	for _, right := range granting(t, component) {
		t.Run(fmt.Sprintf("without %s it is", right), func(t *testing.T) {
			t.Parallel()
			ctx, s := newSite(t, "airflow-requeue-"+component)
			all := moved(t, s.Namespace, s.Namespace)
			right.take(t, all)
			s.install(t, all)
			err := work(ctx, s)
			refused := s.refusals.list()
			require.NotEmpty(t, refused, "it ended with: %v", err)
			for _, what := range refused {
				require.Contains(t, what, right.refusal())
			}
		})
	}
}

// right is one verb of a rule.
type right struct {
	kind, name string
	component  string
	rule       int
	verb       string
	resource   string
}

func (r right) String() string { return r.verb + " " + r.resource }

// refusal is what the API server says of who lacks the right.
func (r right) refusal() string {
	if r.verb == "stamp" {
		return refusedByPolicy
	}
	return fmt.Sprintf("cannot %s resource %q", r.verb, r.resource)
}

// granting returns all rights of a component's account.
func granting(t *testing.T, component string) []right {
	t.Helper()
	return grantingIn(t, "base", component)
}

// grantingIn returns those that a folder grants.
func grantingIn(t *testing.T, name, component string) []right {
	t.Helper()
	var all []right
	for _, u := range build(t, folder(t, name)).of("Role", "ClusterRole") {
		if u.GetLabels()["app.kubernetes.io/component"] != component {
			continue
		}
		for i, rule := range decode[rbacv1.ClusterRole](t, u).Rules {
			require.Len(t, rule.Resources, 1, "a rule for each resource")
			for _, verb := range rule.Verbs {
				all = append(all, right{kind: u.GetKind(), name: u.GetName(), component: component, rule: i, verb: verb, resource: rule.Resources[0]})
			}
		}
	}
	require.NotEmpty(t, all)
	return all
}

// take removes the right from the roles.
func (r right) take(t *testing.T, all objects) {
	t.Helper()
	for _, u := range all.of(r.kind) {
		role := decode[rbacv1.ClusterRole](t, u)
		if r.kind == "Role" && u.GetName() != r.name || r.component != u.GetLabels()["app.kubernetes.io/component"] {
			continue // the name of a ClusterRole is the installation's
		}
		rule := &role.Rules[r.rule]
		require.Contains(t, rule.Verbs, r.verb)
		rule.Verbs = slices.DeleteFunc(rule.Verbs, func(v string) bool { return v == r.verb })
		if len(rule.Verbs) == 0 {
			role.Rules = slices.Delete(role.Rules, r.rule, r.rule+1)
		}
		raw, err := runtime.DefaultUnstructuredConverter.ToUnstructured(role)
		require.NoError(t, err)
		u.Object["rules"] = raw["rules"]
		return
	}
	require.FailNow(t, "no such role", "%s of the %s", r.kind, r.component)
}

// install gives the installation's accounts their rights, and has its policy enforced.
func (s *site) install(t *testing.T, all objects) {
	t.Helper()
	granted(t, s.Namespace, all.rights())
	enforced(t, s.Namespace, all)
}

// granted applies the rights, and waits until the API server's authorizer has them all.
func granted(t *testing.T, name string, all objects) {
	t.Helper()
	applyAll(t, all)
	for _, u := range all.of("Role", "ClusterRole") {
		role := decode[rbacv1.ClusterRole](t, u)
		account := "airflow-requeue-" + u.GetLabels()["app.kubernetes.io/component"]
		for _, rule := range role.Rules {
			resource, subresource, _ := strings.Cut(rule.Resources[0], "/")
			for _, verb := range rule.Verbs {
				asked := authorizationv1.ResourceAttributes{Namespace: u.GetNamespace(), Verb: verb, Group: rule.APIGroups[0],
					Resource: resource, Subresource: subresource, Name: strings.Join(rule.ResourceNames, "")}
				err := until(t.Context(), fmt.Sprintf("%+v", asked), func() (bool, error) { return allowed(t, name, account, asked), nil })
				require.NoError(t, err)
			}
		}
	}
}
