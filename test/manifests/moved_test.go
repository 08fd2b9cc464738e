package manifests_test

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

func TestAnInstallationElsewhereNamesNothingOfTheFirst(t *testing.T) {
	constant := strings.NewReplacer("ghcr.io/airflow-requeue/", "", "/etc/airflow-requeue/", "", "airflow-requeue.dev", "")
	all := append(moved(t, "data", "data-requeue"), overlay(t, "self-signed", []string{"wiring"}, "data", "data-requeue")...)
	for _, u := range all {
		for path, value := range leaves("", u.Object) {
			if strings.HasSuffix(path, "app.kubernetes.io/name") || strings.HasSuffix(path, "app.kubernetes.io/part-of") {
				continue
			}
			for _, part := range strings.FieldsFunc(constant.Replace(value), func(r rune) bool { return strings.ContainsRune("/:.=", r) }) {
				assert.NotContains(t, []string{"airflow", "airflow-requeue"}, part, "%s %s, %s: %s", u.GetKind(), u.GetName(), path, value)
			}
		}
	}
}

// leaves are all strings of an object, by their path.
func leaves(path string, value any) map[string]string {
	found := map[string]string{}
	switch v := value.(type) {
	case string:
		found[path] = v
	case map[string]any:
		for k, e := range v {
			maps.Copy(found, leaves(path+"."+k, e))
		}
	case []any:
		for i, e := range v {
			maps.Copy(found, leaves(fmt.Sprintf("%s[%d]", path, i), e))
		}
	}
	return found
}

func TestTheWiringAgreesWithWhatTheBaseSays(t *testing.T) {
	for _, name := range []string{"default", "self-signed"} {
		assert.Equal(t, build(t, folder(t, name)), overlay(t, name, []string{"wiring"}, "airflow", "airflow-requeue"))
	}
}

func TestTheExampleChangesWhatItSays(t *testing.T) {
	example := build(t, folder(t, "example"))
	plain := moved(t, "data", "data-requeue")

	webhook := into[appsv1.Deployment](t, example, "Deployment", "airflow-requeue-webhook").Spec.Template.Spec
	assert.Contains(t, webhook.Containers[0].Env, corev1.EnvVar{Name: "AIRFLOW_USER", Value: "system:serviceaccount:data:prod-scheduler"})
	watcher := into[appsv1.Deployment](t, example, "Deployment", "airflow-requeue-watcher").Spec.Template.Spec
	assert.Contains(t, watcher.Volumes, corev1.Volume{Name: "database", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{
		SecretName: "prod-airflow-reader", DefaultMode: ptr.To[int32](0o440), Items: []corev1.KeyToPath{{Key: "url", Path: "url"}}}}})

	for i, u := range example { // and nothing else
		if u.GetKind() != "Deployment" {
			assert.Equal(t, plain[i], u)
		}
	}
}
