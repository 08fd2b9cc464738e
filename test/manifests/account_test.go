package manifests_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// The accounts of an Airflow's namespace that are not ours.
const (
	scheduler = "airflow-scheduler" // as the chart names it
	attacker  = "attacker"
)

// schedulerRights are those of the chart's pod-launcher-role, and attackerRights those of somebody who may do much to pods, but not
// delete them.
var (
	schedulerRights = []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"create", "list", "get", "patch", "watch", "delete"}}}
	attackerRights  = []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"pods", "pods/status", "pods/ephemeralcontainers", "pods/resize", "pods/binding"},
		Verbs: []string{"create", "list", "get", "patch"}}}
)

// account makes a service account with rights in a namespace, and returns access by a token of it.
func account(t *testing.T, namespace, name string, rules []rbacv1.PolicyRule) *rest.Config {
	t.Helper()
	meta := metav1.ObjectMeta{Name: name, Namespace: namespace}
	_, err := admin(t).CoreV1().ServiceAccounts(namespace).Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: meta}, metav1.CreateOptions{})
	require.NoError(t, err)
	_, err = admin(t).RbacV1().Roles(namespace).Create(t.Context(), &rbacv1.Role{ObjectMeta: meta, Rules: rules}, metav1.CreateOptions{})
	require.NoError(t, err)
	_, err = admin(t).RbacV1().RoleBindings(namespace).Create(t.Context(), &rbacv1.RoleBinding{ObjectMeta: meta,
		RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: name},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: name, Namespace: namespace}}}, metav1.CreateOptions{})
	require.NoError(t, err)
	token, err := admin(t).CoreV1().ServiceAccounts(namespace).CreateToken(t.Context(), name, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	require.NoError(t, err)
	cfg := rest.AnonymousClientConfig(servers.Config())
	cfg.QPS, cfg.Burst, cfg.BearerToken = 1000, 2000, token.Status.Token
	client := clientOf(t, cfg)
	require.NoError(t, until(t.Context(), "the rights of "+name, func() (bool, error) {
		_, err := client.CoreV1().Pods(namespace).List(t.Context(), metav1.ListOptions{})
		return err == nil, nil // RBAC answers from a cache
	}))
	return cfg
}

func clientOf(t *testing.T, cfg *rest.Config) kubernetes.Interface {
	t.Helper()
	client, err := kubernetes.NewForConfig(cfg)
	require.NoError(t, err)
	return client
}
