package manifests_test

import (
	"maps"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestTheAPIServerTakesEveryObjectWithStrictValidation(t *testing.T) {
	airflow := build(t, folder(t, "namespace"))
	require.Len(t, airflow, 1)
	require.Empty(t, airflow[0].GetLabels(), "Airflow's pods would be admitted otherwise than before")
	applyAll(t, airflow)
	for _, name := range []string{"data", "team-a", "team-b"} { // the examples'
		namespace(t, name, nil)
	}

	for _, name := range []string{"default", "self-signed", "release", "example", "shards"} {
		t.Run(name, func(t *testing.T) {
			all := build(t, folder(t, name))
			applyAll(t, all)
			for _, u := range all {
				for _, label := range []string{"name", "instance", "component", "part-of", "managed-by"} {
					assert.Contains(t, u.GetLabels(), "app.kubernetes.io/"+label, "%s %s", u.GetKind(), u.GetName())
				}
			}
		})
	}
}

func TestWhatCanBeDeletedWithTheInstallationIsOnlyItsOwn(t *testing.T) {
	all := build(t, folder(t, "default"))
	assert.Empty(t, all.of("Namespace"), "whoever deletes the installation would delete Airflow")
	for _, secret := range all.of("Secret") {
		assert.NotContains(t, secret.Object, "data", "keys are never part of what everybody has")
		assert.NotContains(t, secret.Object, "stringData")
	}
	counts := map[string]int{}
	for _, u := range all {
		counts[u.GetKind()]++
		assert.Contains(t, u.GetName(), "airflow-requeue", u.GetKind())
	}
	assert.Equal(t, map[string]int{"ServiceAccount": 3, "Role": 3, "RoleBinding": 3, "ClusterRole": 2, "ClusterRoleBinding": 2, "Lease": 1, "Secret": 1,
		"Deployment": 2, "PodDisruptionBudget": 2, "Service": 1, "MutatingWebhookConfiguration": 1,
		"ValidatingAdmissionPolicy": 1, "ValidatingAdmissionPolicyBinding": 1, "Issuer": 2, "Certificate": 2}, counts)
}

func TestThePodsMeetPodSecurityRestricted(t *testing.T) {
	const restricted = "restricted"
	namespace(t, restricted, map[string]string{"pod-security.kubernetes.io/enforce": "restricted"})
	pods := admin(t).CoreV1().Pods(restricted)
	create := func(name string, template corev1.PodTemplateSpec) error {
		pod := &corev1.Pod{ObjectMeta: template.ObjectMeta, Spec: template.Spec}
		pod.Name = name
		_, err := pods.Create(t.Context(), pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return err
	}
	templates := podTemplates(t)
	require.Equal(t, []string{"airflow-requeue-release", "airflow-requeue-watcher", "airflow-requeue-webhook"}, slices.Sorted(maps.Keys(templates)))
	for name, template := range templates {
		t.Run(name, func(t *testing.T) {
			require.NoError(t, create(name, template))

			template.Spec.SecurityContext.SeccompProfile = nil
			require.True(t, apierrors.IsForbidden(create(name, template)), "the namespace must refuse a pod that is not restricted")
		})
	}
}

// podTemplates are those of all workloads, by name.
func podTemplates(t *testing.T) map[string]corev1.PodTemplateSpec {
	t.Helper()
	templates := map[string]corev1.PodTemplateSpec{}
	for _, u := range build(t, folder(t, "default")).of("Deployment") {
		templates[u.GetName()] = decode[appsv1.Deployment](t, u).Spec.Template
	}
	for _, u := range build(t, folder(t, "release")).of("Job") {
		templates[u.GetName()] = decode[batchv1.Job](t, u).Spec.Template
	}
	return templates
}

func TestContainersAreConfinedAndBounded(t *testing.T) {
	for name, template := range podTemplates(t) {
		t.Run(name, func(t *testing.T) {
			require.Len(t, template.Spec.Containers, 1)
			for _, c := range slices.Concat(template.Spec.InitContainers, template.Spec.Containers) {
				require.NotNil(t, c.SecurityContext)
				assert.True(t, *c.SecurityContext.ReadOnlyRootFilesystem)
				assert.False(t, c.Resources.Requests.Cpu().IsZero())
				assert.False(t, c.Resources.Requests.Memory().IsZero())
				assert.False(t, c.Resources.Limits.Memory().IsZero())
				assert.True(t, c.Resources.Limits.Cpu().IsZero(), "a limit would throttle a storm")
				assert.Regexp(t, `^ghcr\.io/airflow-requeue/(watcher|webhook):v\d+\.\d+\.\d+$`, c.Image)
			}
			for _, v := range template.Spec.Volumes {
				require.NotNil(t, v.Secret, v.Name)
				assert.EqualValues(t, 0o440, *v.Secret.DefaultMode)
			}
		})
	}
}
