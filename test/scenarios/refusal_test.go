package scenarios

import (
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/airflow-requeue/airflow-requeue/internal/executor"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// unwanted labels the pods that a cluster's own policy refuses.
const unwanted = "scenarios/refused"

// forbid has the API server refuse the case's replacements: a policy of the cluster's operator.
func (s *stage) forbid(reason metav1.StatusReason) func(*executor.Task) {
	s.T.Helper()
	value := string(reason)
	admission := s.Client.AdmissionregistrationV1()
	name := s.Namespace + "." + "refuses-" + map[metav1.StatusReason]string{metav1.StatusReasonForbidden: "403", metav1.StatusReasonInvalid: "422"}[reason]
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
func (s *stage) refusedForGood(reason metav1.StatusReason) {
	s.T.Helper()
	pod := s.submit(s.queue(s.forbid(reason)))
	s.reject(pod)
	last := s.reported(pod, requeue.ReasonRefused, "no second pod here; OutOfcpu")
	assert.Equal(s.T, "1", last.Labels[requeue.LabelWorker], "the detach is undone")
	s.saw("failed " + pod.Name)
}
