package programs

import (
	"time"

	"github.com/stretchr/testify/require"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/airflow-requeue/airflow-requeue/internal/world"
)

const (
	scheduler = "airflow-scheduler"
	launcher  = "airflow-pod-launcher-role"
)

// AirflowUser is the account of Airflow's scheduler, as its official chart names it.
func (s *Site) AirflowUser() string {
	return "system:serviceaccount:" + s.Namespace + ":" + scheduler
}

// AirflowAccess is the access of Airflow's scheduler to the API server: RBAC binds it to what the official chart grants.
func (s *Site) AirflowAccess() *rest.Config {
	s.T.Helper()
	if s.airflow != nil {
		return rest.CopyConfig(s.airflow)
	}
	config, err := s.Servers.User(s.AirflowUser())
	require.NoError(s.T, err)
	client, err := kubernetes.NewForConfig(config)
	require.NoError(s.T, err)
	for _, namespace := range s.Namespaces() {
		s.allowLaunching(namespace)
		// The API server's authorizer learns of it a moment later.
		require.Eventually(s.T, func() bool {
			_, err := client.CoreV1().Pods(namespace).List(s.T.Context(), metav1.ListOptions{Limit: 1})
			return err == nil
		}, world.Patience, 20*time.Millisecond, "the rights of Airflow's scheduler in namespace %s", namespace)
	}
	s.airflow = config
	return rest.CopyConfig(config)
}

// allowLaunching makes the chart's pod-launcher-role.yaml and its binding.
func (s *Site) allowLaunching(namespace string) {
	s.T.Helper()
	core := []string{""}
	role := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: launcher}, Rules: []rbacv1.PolicyRule{
		{APIGroups: core, Resources: []string{"pods"}, Verbs: []string{"create", "list", "get", "patch", "watch", "delete"}},
		{APIGroups: core, Resources: []string{"pods/log"}, Verbs: []string{"get"}},
		{APIGroups: core, Resources: []string{"pods/exec"}, Verbs: []string{"create", "get"}},
		{APIGroups: core, Resources: []string{"events"}, Verbs: []string{"list"}},
	}}
	_, err := s.Client.RbacV1().Roles(namespace).Create(s.T.Context(), role, metav1.CreateOptions{})
	require.NoError(s.T, err)
	binding := &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Name: launcher},
		RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: launcher},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: s.Namespace, Name: scheduler}}}
	_, err = s.Client.RbacV1().RoleBindings(namespace).Create(s.T.Context(), binding, metav1.CreateOptions{})
	require.NoError(s.T, err)
}
