package scenarios

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	reviewv1 "k8s.io/api/admission/v1"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"k8s.io/apimachinery/pkg/types"

	"github.com/airflow-requeue/airflow-requeue/internal/executor"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// unwanted labels the pods that a cluster's own policy refuses.
const unwanted = "scenarios/refused"

// forbid has the API server refuse the replacements of pods with a label's value: a policy of the cluster's operator.
func (s *stage) forbid(reason metav1.StatusReason, value string) func(*executor.Task) {
	s.T.Helper()
	admission := s.Client.AdmissionregistrationV1()
	name := s.Namespace + "." + value
	_, err := admission.ValidatingAdmissionPolicies().Create(s.T.Context(), &admissionv1.ValidatingAdmissionPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: admissionv1.ValidatingAdmissionPolicySpec{
			MatchConstraints: &admissionv1.MatchResources{
				NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: s.Namespace}},
				ObjectSelector:    &metav1.LabelSelector{MatchLabels: map[string]string{unwanted: value}},
				ResourceRules: []admissionv1.NamedRuleWithOperations{{RuleWithOperations: admissionv1.RuleWithOperations{
					Operations: []admissionv1.OperationType{admissionv1.Create},
					Rule:       admissionv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods"}},
				}}},
			},
			Validations: []admissionv1.Validation{{
				Expression: "!('" + requeue.AnnotationRequeueOf + "' in object.metadata.annotations)",
				Message:    "no second pod here", Reason: &reason,
			}},
		},
	}, metav1.CreateOptions{})
	require.NoError(s.T, err)
	_, err = admission.ValidatingAdmissionPolicyBindings().Create(s.T.Context(), &admissionv1.ValidatingAdmissionPolicyBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: admissionv1.ValidatingAdmissionPolicyBindingSpec{PolicyName: name,
			ValidationActions: []admissionv1.ValidationAction{admissionv1.Deny}},
	}, metav1.CreateOptions{})
	require.NoError(s.T, err)
	s.eventually("the policy is enforced", func() bool { return s.try(map[string]string{unwanted: value}) != nil })
	return func(task *executor.Task) { task.Labels = map[string]string{unwanted: value} }
}

// try is how the API server would answer the create of a pod that replaces another.
func (s *stage) try(labels map[string]string) error {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "try", Labels: labels, Annotations: map[string]string{requeue.AnnotationRequeueOf: "try"}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "try", Image: "try"}}},
	}
	_, err := s.Client.CoreV1().Pods(s.Namespace).Create(s.T.Context(), pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	return err
}

// refusedForGood is a pod whose replacement the API server will never have.
func (s *stage) refusedForGood(reason metav1.StatusReason, who string) {
	s.T.Helper()
	pod := s.submit(s.queue(s.forbid(reason, strings.ToLower(string(reason))+"."+who)))
	s.reject(pod)
	last := s.reported(pod, requeue.ReasonRefused, "no second pod here; OutOfcpu")
	assert.Equal(s.T, "1", last.Labels[requeue.LabelWorker], "the detach is undone")
	s.saw("failed " + pod.Name)
}

// answering has the API server answer the creates of replacements that have the label with a code, until they are
// allowed: an admission webhook of the cluster's operator says so.
func (s *stage) answering(code int) (label map[string]string, allow func()) {
	s.T.Helper()
	var allowed atomic.Bool
	server := httptest.NewTLSServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		var review reviewv1.AdmissionReview
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil || review.Request == nil {
			http.Error(rw, "not a review", http.StatusBadRequest)
			return
		}
		replaces := strings.Contains(string(review.Request.Object.Raw), `"`+requeue.AnnotationRequeueOf+`"`)
		review.Response = &reviewv1.AdmissionResponse{UID: review.Request.UID, Allowed: allowed.Load() || !replaces,
			Result: &metav1.Status{Code: int32(code), Message: "not now"}}
		_ = json.NewEncoder(rw).Encode(review)
	}))
	s.T.Cleanup(server.Close)
	name := s.Namespace + ".answers-" + strconv.Itoa(code)
	label = map[string]string{unwanted: name}
	fail, none := admissionv1.Fail, admissionv1.SideEffectClassNone
	webhooks := s.Client.AdmissionregistrationV1().ValidatingWebhookConfigurations()
	_, err := webhooks.Create(s.T.Context(), &admissionv1.ValidatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Webhooks: []admissionv1.ValidatingWebhook{{
			Name: "refuses.scenarios.test", FailurePolicy: &fail, SideEffects: &none, AdmissionReviewVersions: []string{"v1"},
			ClientConfig: admissionv1.WebhookClientConfig{URL: &server.URL,
				CABundle: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})},
			ObjectSelector: &metav1.LabelSelector{MatchLabels: label},
			Rules: []admissionv1.RuleWithOperations{{Operations: []admissionv1.OperationType{admissionv1.Create},
				Rule: admissionv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods"}}}},
		}},
	}, metav1.CreateOptions{})
	require.NoError(s.T, err)
	s.T.Cleanup(func() { _ = webhooks.Delete(context.Background(), name, metav1.DeleteOptions{}) })
	s.eventually("the webhook is asked", func() bool { return s.try(label) != nil })
	return label, func() { allowed.Store(true) }
}

// quota gives the namespace a quota of pods that is used up or not. No controller counts here: its status is set by hand.
func (s *stage) quota(usedUp bool) {
	s.T.Helper()
	quotas := s.Client.CoreV1().ResourceQuotas(s.Namespace)
	limit := corev1.ResourceList{corev1.ResourcePods: resource.MustParse("1000")}
	used := "0"
	if usedUp {
		used = "1000"
		_, err := quotas.Create(s.T.Context(), &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: "pods"},
			Spec: corev1.ResourceQuotaSpec{Hard: limit}}, metav1.CreateOptions{})
		require.NoError(s.T, err)
	}
	_, err := quotas.Patch(s.T.Context(), "pods", types.MergePatchType,
		[]byte(`{"status":{"hard":{"pods":"1000"},"used":{"pods":"`+used+`"}}}`), metav1.PatchOptions{}, "status")
	require.NoError(s.T, err)
	s.eventually("the quota is enforced", func() bool { return (s.try(nil) != nil) == usedUp })
}
