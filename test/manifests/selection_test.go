package manifests_test

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/airflow-requeue/airflow-requeue/internal/executor"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

func TestTheWebhookIsAskedAboutWorkerPodsOnly(t *testing.T) {
	applyAll(t, build(t, folder(t, "namespace")))
	for _, name := range []string{"elsewhere", metav1.NamespaceDefault} {
		namespace(t, name, nil)
	}
	asked := listen(t)
	pods := admin(t).CoreV1().Pods
	worker := func(name, namespace string) *corev1.Pod {
		task := executor.NewTask("dag", "task", "manual__1", time.Now())
		task.Name, task.Namespace = name, namespace
		return executor.Pod(task)
	}
	dry := metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}
	create := func(pod *corev1.Pod, options metav1.CreateOptions) {
		_, err := pods(pod.Namespace).Create(t.Context(), pod, options)
		require.NoError(t, err)
	}
	config := servers.Config()
	config.Impersonate = rest.ImpersonationConfig{UserName: "system:serviceaccount:airflow:airflow-requeue-watcher", Groups: []string{"system:masters"}}
	watcher, err := kubernetes.NewForConfig(config)
	require.NoError(t, err)
	forged := worker("not-the-watchers", "airflow")
	forged.Annotations[requeue.AnnotationRequeueOf] = "a pod"
	replacement := forged.DeepCopy()
	replacement.Name = "replacement"
	operators := worker("of-an-operator", "airflow") // KubernetesPodOperator's
	delete(operators.Labels, requeue.LabelKubernetesExecutor)
	operators.Labels["kubernetes_pod_operator"] = "True"
	for _, pod := range []*corev1.Pod{worker("elsewhere", "elsewhere"), worker("of-the-system", metav1.NamespaceSystem), operators} {
		create(pod, dry)
	}
	create(worker("dry", "airflow"), dry)
	create(forged, dry)
	for _, pod := range []*corev1.Pod{replacement, worker("no-replacement", "airflow")} {
		_, err := watcher.CoreV1().Pods("airflow").Create(t.Context(), pod, dry)
		require.NoError(t, err)
	}
	create(worker("worker", "airflow"), metav1.CreateOptions{})
	_, err = pods("airflow").Patch(t.Context(), "worker", types.MergePatchType, []byte(`{"metadata":{"labels":{"changed":"True"}}}`), metav1.PatchOptions{})
	require.NoError(t, err)
	now := int64(0)
	require.NoError(t, pods("airflow").Delete(t.Context(), "worker", metav1.DeleteOptions{GracePeriodSeconds: &now}))

	assert.Equal(t, []string{"CREATE airflow/dry", "CREATE airflow/not-the-watchers", "CREATE airflow/no-replacement", "CREATE airflow/worker"}, asked())
}

// listen installs the webhook configuration with a server of its own, and returns what that was asked since.
func listen(t *testing.T) (asked func() []string) {
	t.Helper()
	var mu sync.Mutex
	var names []string
	webhook := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var review admissionv1.AdmissionReview
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		mu.Lock()
		names = append(names, string(review.Request.Operation)+" "+review.Request.Namespace+"/"+review.Request.Name)
		mu.Unlock()
		review.Response = &admissionv1.AdmissionResponse{UID: review.Request.UID, Allowed: true}
		_ = json.NewEncoder(w).Encode(review)
	}))
	t.Cleanup(webhook.Close)

	configuration := into[admissionregistrationv1.MutatingWebhookConfiguration](t, build(t, folder(t, "default")), "MutatingWebhookConfiguration", "airflow-requeue")
	configuration.Name = "listening"
	configuration.Webhooks[0].ClientConfig = admissionregistrationv1.WebhookClientConfig{URL: &webhook.URL,
		CABundle: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: webhook.Certificate().Raw})}
	configurations := admin(t).AdmissionregistrationV1().MutatingWebhookConfigurations()
	_, err := configurations.Create(t.Context(), configuration, metav1.CreateOptions{})
	require.NoError(t, err)
	t.Cleanup(func() {
		assert.NoError(t, configurations.Delete(context.WithoutCancel(t.Context()), configuration.Name, metav1.DeleteOptions{}))
	})

	asked = func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.DeleteFunc(slices.Clone(names), func(name string) bool { return name == "CREATE airflow/probe" })
	}
	task := executor.NewTask("dag", "task", "manual__1", time.Now())
	task.Name = "probe"
	err = until(t.Context(), "the API server to know the webhook", func() (bool, error) {
		_, err := admin(t).CoreV1().Pods("airflow").Create(t.Context(), executor.Pod(task), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		mu.Lock()
		defer mu.Unlock()
		return len(names) > 0, err
	})
	require.NoError(t, err)
	return asked
}

func TestTheWebhookConfigurationNeverStandsInTheWay(t *testing.T) {
	configuration := into[admissionregistrationv1.MutatingWebhookConfiguration](t, build(t, folder(t, "default")), "MutatingWebhookConfiguration", "airflow-requeue")
	require.Len(t, configuration.Webhooks, 1)
	w := configuration.Webhooks[0]
	assert.Equal(t, admissionregistrationv1.Ignore, *w.FailurePolicy)
	assert.Equal(t, admissionregistrationv1.IfNeededReinvocationPolicy, *w.ReinvocationPolicy)
	assert.Equal(t, admissionregistrationv1.SideEffectClassNone, *w.SideEffects)
	assert.Equal(t, admissionregistrationv1.Equivalent, *w.MatchPolicy)
	assert.EqualValues(t, 2, *w.TimeoutSeconds)
}
