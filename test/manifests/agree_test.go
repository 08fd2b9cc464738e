package manifests_test

import (
	"path"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	certmanagerv1 "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"

	"github.com/airflow-requeue/airflow-requeue/internal/programs"
	"github.com/airflow-requeue/airflow-requeue/pkg/mutate"
)

// TestTheObjectsAgree checks what no server does: that objects which name one another mean the same.
func TestTheObjectsAgree(t *testing.T) {
	for name, all := range map[string]objects{"default": build(t, folder(t, "default")), "example": build(t, folder(t, "example"))} {
		watcher := into[appsv1.Deployment](t, all, "Deployment", "airflow-requeue-watcher")
		webhook := into[appsv1.Deployment](t, all, "Deployment", "airflow-requeue-webhook")
		installation := watcher.Labels["app.kubernetes.io/instance"]
		configuration := into[admissionregistrationv1.MutatingWebhookConfiguration](t, all, "MutatingWebhookConfiguration", installation)
		certificate := into[certmanagerv1.Certificate](t, all, "Certificate", "airflow-requeue-webhook")

		t.Run(name+": the API server finds the webhook", func(t *testing.T) {
			service := into[corev1.Service](t, all, "Service", "airflow-requeue-webhook")
			reference := configuration.Webhooks[0].ClientConfig.Service
			assert.Equal(t, service.Name, reference.Name)
			assert.Equal(t, service.Namespace, reference.Namespace)
			assert.Equal(t, mutate.Path, *reference.Path)
			assert.Equal(t, service.Spec.Ports[0].Port, *reference.Port)
			assert.Equal(t, service.Spec.Selector, webhook.Spec.Selector.MatchLabels)
			assert.Contains(t, webhook.Spec.Template.Spec.Containers[0].Ports,
				corev1.ContainerPort{Name: service.Spec.Ports[0].TargetPort.StrVal, ContainerPort: 8443})
			assert.Equal(t, []string{service.Name + "." + service.Namespace + ".svc"}, certificate.Spec.DNSNames)
		})
		t.Run(name+": the API server and the webhook mean the same watcher", func(t *testing.T) {
			user := "system:serviceaccount:" + watcher.Namespace + ":" + watcher.Spec.Template.Spec.ServiceAccountName
			assert.Equal(t, programs.NotReplacements(user), configuration.Webhooks[0].MatchConditions)
			assert.Contains(t, webhook.Spec.Template.Spec.Containers[0].Args,
				"--watcher-user="+strings.Replace(user, watcher.Namespace, "$(POD_NAMESPACE)", 1))
		})
		t.Run(name+": the certificate is vouched for and mounted", func(t *testing.T) {
			authority := into[certmanagerv1.Certificate](t, all, "Certificate", "airflow-requeue-ca")
			issuer := into[certmanagerv1.Issuer](t, all, "Issuer", certificate.Spec.IssuerRef.Name)
			assert.Equal(t, authority.Spec.SecretName, issuer.Spec.CA.SecretName)
			assert.True(t, authority.Spec.IsCA)
			assert.NotNil(t, into[certmanagerv1.Issuer](t, all, "Issuer", authority.Spec.IssuerRef.Name).Spec.SelfSigned)
			assert.Equal(t, certificate.Namespace+"/"+certificate.Name, configuration.Annotations["cert-manager.io/inject-ca-from"])
			assert.Equal(t, certificate.Spec.SecretName, secretAt(t, webhook, "--tls-cert-file"))
			assert.Equal(t, certificate.Spec.SecretName, secretAt(t, webhook, "--tls-private-key-file"))
		})
		t.Run(name+": both programs have the same keys", func(t *testing.T) {
			assert.Equal(t, "airflow-requeue-signing-keys", secretAt(t, watcher, "--signing-keys-dir"))
			assert.Equal(t, "airflow-requeue-signing-keys", secretAt(t, webhook, "--signing-keys-dir"))
		})
		for _, d := range []*appsv1.Deployment{watcher, webhook} {
			t.Run(name+": "+d.Name+" is kept alive and has its rights", func(t *testing.T) {
				assert.EqualValues(t, 2, *d.Spec.Replicas)
				budget := into[policyv1.PodDisruptionBudget](t, all, "PodDisruptionBudget", d.Name)
				assert.Equal(t, d.Spec.Selector, budget.Spec.Selector)
				assert.EqualValues(t, 1, budget.Spec.MinAvailable.IntVal)
				assert.Equal(t, policyv1.AlwaysAllow, *budget.Spec.UnhealthyPodEvictionPolicy)
				for _, c := range d.Spec.Template.Spec.TopologySpreadConstraints {
					assert.Equal(t, d.Spec.Selector, c.LabelSelector)
				}
				into[corev1.ServiceAccount](t, all, "ServiceAccount", d.Spec.Template.Spec.ServiceAccountName)
				binding := into[rbacv1.RoleBinding](t, all, "RoleBinding", d.Name)
				assert.Equal(t, []rbacv1.Subject{{Kind: "ServiceAccount", Name: d.Spec.Template.Spec.ServiceAccountName, Namespace: d.Namespace}}, binding.Subjects)
				assert.Equal(t, []string{d.Namespace}, namespaces(all))
			})
		}
		t.Run(name+": no selector takes another's pods", func(t *testing.T) {
			assert.False(t, matches(t, watcher.Spec.Selector, webhook.Spec.Template.Labels))
			assert.False(t, matches(t, webhook.Spec.Selector, watcher.Spec.Template.Labels))
		})
	}
}

// TestTheSelfSignedWebhookNamesWhatThereIs is of what takes the place of cert-manager.
func TestTheSelfSignedWebhookNamesWhatThereIs(t *testing.T) {
	all := selfSigned(t, "elsewhere")
	spec := into[appsv1.Deployment](t, all, "Deployment", "airflow-requeue-webhook").Spec.Template.Spec
	secret := into[corev1.Secret](t, all, "Secret", "airflow-requeue-ca")
	assert.Subset(t, spec.Containers[0].Args, []string{"--self-signed-secret=" + secret.Name, "--inject-ca-into=$(INSTALLATION)"})
	into[admissionregistrationv1.MutatingWebhookConfiguration](t, all, "MutatingWebhookConfiguration", "elsewhere")
	into[corev1.Service](t, all, "Service", "airflow-requeue-webhook") // the default of --service-name
	for _, arg := range spec.Containers[0].Args {
		assert.NotContains(t, arg, "--tls-")
	}
	require.Len(t, spec.Volumes, 1)
	assert.Equal(t, "airflow-requeue-signing-keys", spec.Volumes[0].Secret.SecretName)
	assert.Len(t, spec.Containers[0].VolumeMounts, 1)
	assert.Empty(t, all.of("Issuer", "Certificate"))
}

// secretAt returns the Secret that is mounted where a flag points to.
func secretAt(t *testing.T, d *appsv1.Deployment, flag string) string {
	t.Helper()
	c := d.Spec.Template.Spec.Containers[0]
	for _, arg := range c.Args {
		value, ok := strings.CutPrefix(arg, flag+"=")
		if !ok {
			continue
		}
		for _, mount := range c.VolumeMounts {
			if mount.MountPath != value && mount.MountPath != path.Dir(value) {
				continue
			}
			for _, volume := range d.Spec.Template.Spec.Volumes {
				if volume.Name == mount.Name {
					return volume.Secret.SecretName
				}
			}
		}
	}
	require.FailNow(t, "nothing is mounted there", "%s of %s", flag, d.Name)
	return ""
}

// namespaces are all that the objects are in.
func namespaces(all objects) []string {
	seen := map[string]bool{}
	var names []string
	for _, u := range all {
		if ns := u.GetNamespace(); ns != "" && !seen[ns] {
			seen[ns] = true
			names = append(names, ns)
		}
	}
	return names
}

func matches(t *testing.T, selector *metav1.LabelSelector, set map[string]string) bool {
	t.Helper()
	s, err := metav1.LabelSelectorAsSelector(selector)
	require.NoError(t, err)
	return s.Matches(labels.Set(set))
}
