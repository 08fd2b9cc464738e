package controlplane

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

func TestControlPlane(t *testing.T) {
	c := startForTest(t, Options{})
	admin := clientsFor(t, c.Config())
	_, err := admin.CoreV1().Namespaces().Create(t.Context(), namespace("airflow"), metav1.CreateOptions{})
	require.NoError(t, err)

	t.Run("a watch shows a pod as it is written", func(t *testing.T) {
		events, err := admin.CoreV1().Pods("airflow").Watch(t.Context(), metav1.ListOptions{})
		require.NoError(t, err)
		defer events.Stop()
		created, err := admin.CoreV1().Pods("airflow").Create(t.Context(), pod("watched"), metav1.CreateOptions{})
		require.NoError(t, err)
		event := <-events.ResultChan()
		assert.Equal(t, watch.Added, event.Type)
		assert.Equal(t, created, event.Object)
	})
	t.Run("the server reports a release that clients know", func(t *testing.T) {
		version, err := admin.Discovery().ServerVersion()
		require.NoError(t, err)
		assert.Regexp(t, `^v1\.[0-9]+\.[0-9]+$`, version.GitVersion)
		assert.Equal(t, "1", version.Major)
		t.Log(version)
	})
	t.Run("RBAC refuses a service account until it is bound to a role", func(t *testing.T) {
		const name = "system:serviceaccount:airflow:scheduler"
		cfg, err := c.User(name)
		require.NoError(t, err)
		pods := clientsFor(t, cfg).CoreV1().Pods("airflow")
		_, err = pods.List(t.Context(), metav1.ListOptions{})
		require.True(t, apierrors.IsForbidden(err), "want a refusal, got %v", err)
		assert.ErrorContains(t, err, name)

		allowListing(t, admin, rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Name: "scheduler", Namespace: "airflow"})
		require.EventuallyWithT(t, func(collect *assert.CollectT) {
			_, err := pods.List(t.Context(), metav1.ListOptions{})
			assert.NoError(collect, err) // RBAC answers from a cache
		}, serverTimeout, pollInterval)
	})
	t.Run("a service account has its groups", func(t *testing.T) {
		assert.Equal(t, []string{"system:serviceaccounts", "system:serviceaccounts:airflow"},
			impliedGroups("system:serviceaccount:airflow:scheduler"))
		assert.Nil(t, impliedGroups("system:serviceaccount:airflow"))
		assert.Nil(t, impliedGroups("anna"))
	})
	t.Run("a kubeconfig gives another process the same access", func(t *testing.T) {
		content, err := c.Kubeconfig(c.Config())
		require.NoError(t, err)
		cfg, err := clientcmd.RESTConfigFromKubeConfig(content)
		require.NoError(t, err)
		_, err = clientsFor(t, cfg).CoreV1().Namespaces().Get(t.Context(), "airflow", metav1.GetOptions{})
		assert.NoError(t, err)
	})
	t.Run("users can be added by several tests at once", func(t *testing.T) {
		done := make(chan error)
		for range 4 {
			go func() {
				_, err := c.User("anna")
				done <- err
			}()
		}
		for range 4 {
			assert.NoError(t, <-done)
		}
	})
}

func TestOptionsReachTheAPIServer(t *testing.T) {
	c := startForTest(t, Options{
		ServiceAccountAdmission: true,
		APIServerFlags:          map[string][]string{"enable-admission-plugins": {"AlwaysPullImages"}},
	})
	admin := clientsFor(t, c.Config())

	_, err := admin.CoreV1().Pods("default").Create(t.Context(), pod("early"), metav1.CreateOptions{})
	require.ErrorContains(t, err, `error looking up service account default/default: serviceaccount "default" not found`)

	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}
	_, err = admin.CoreV1().ServiceAccounts("default").Create(t.Context(), account, metav1.CreateOptions{})
	require.NoError(t, err)
	created, err := admin.CoreV1().Pods("default").Create(t.Context(), pod("late"), metav1.CreateOptions{})
	require.NoError(t, err)
	assert.Equal(t, corev1.PullAlways, created.Spec.Containers[0].ImagePullPolicy)
	assert.Len(t, created.Spec.Volumes, 1, "the token's volume")

	t.Run("what is stored and who may come outlast the API server", func(t *testing.T) {
		events, err := admin.CoreV1().Pods("default").Watch(t.Context(), metav1.ListOptions{ResourceVersion: created.ResourceVersion})
		require.NoError(t, err)
		require.NoError(t, c.StopAPIServer())
		_, open := <-events.ResultChan()
		assert.False(t, open, "the watch ends")
		_, err = admin.CoreV1().Pods("default").Get(t.Context(), "late", metav1.GetOptions{})
		require.Error(t, err)
		require.False(t, apierrors.IsNotFound(err), "want no answer at all, got %v", err)

		require.NoError(t, c.StartAPIServer())
		again, err := admin.CoreV1().Pods("default").Get(t.Context(), "late", metav1.GetOptions{})
		require.NoError(t, err)
		assert.Equal(t, created.UID, again.UID)
	})
}

func startForTest(t *testing.T, opts Options) *ControlPlane {
	t.Helper()
	opts.Progress = t.Output()
	c, err := Start(t.Context(), opts)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, c.Stop()) })
	return c
}

func clientsFor(t *testing.T, cfg *rest.Config) kubernetes.Interface {
	t.Helper()
	clients, err := kubernetes.NewForConfig(cfg)
	require.NoError(t, err)
	return clients
}

func allowListing(t *testing.T, admin kubernetes.Interface, subject rbacv1.Subject) {
	t.Helper()
	named := metav1.ObjectMeta{Name: "list-pods"}
	role := &rbacv1.Role{
		ObjectMeta: named,
		Rules:      []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"list"}}},
	}
	_, err := admin.RbacV1().Roles("airflow").Create(t.Context(), role, metav1.CreateOptions{})
	require.NoError(t, err)
	binding := &rbacv1.RoleBinding{
		ObjectMeta: named,
		Subjects:   []rbacv1.Subject{subject},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: role.Name},
	}
	_, err = admin.RbacV1().RoleBindings("airflow").Create(t.Context(), binding, metav1.CreateOptions{})
	require.NoError(t, err)
}

func namespace(name string) *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
}

func pod(name string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "base", Image: "apache/airflow"}}},
	}
}
