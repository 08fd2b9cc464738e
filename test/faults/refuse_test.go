package faults

import (
	"context"
	"fmt"
	"time"

	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/airflow-requeue/airflow-requeue/internal/executor"
	"github.com/airflow-requeue/airflow-requeue/internal/world"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// labelRefused is on pods whose replacements the API server refuses for good.
const labelRefused = "refuse-replacements"

// refuseSomeReplacements makes the policy that labelRefused is about, and returns when it is enforced.
func refuseSomeReplacements(ctx context.Context, config *rest.Config) error {
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	const name = "refuse-replacements.airflow-requeue.test"
	reason, admission := metav1.StatusReasonInvalid, client.AdmissionregistrationV1()
	_, err = admission.ValidatingAdmissionPolicies().Create(ctx, &admissionv1.ValidatingAdmissionPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: admissionv1.ValidatingAdmissionPolicySpec{
			MatchConstraints: &admissionv1.MatchResources{
				ObjectSelector: &metav1.LabelSelector{MatchLabels: map[string]string{labelRefused: "true"}},
				ResourceRules: []admissionv1.NamedRuleWithOperations{{RuleWithOperations: admissionv1.RuleWithOperations{
					Operations: []admissionv1.OperationType{admissionv1.Create},
					Rule:       admissionv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods"}},
				}}},
			},
			Validations: []admissionv1.Validation{{
				Expression: `!("` + requeue.AnnotationRequeueOf + `" in object.metadata.?annotations.orValue({}))`,
				Reason:     &reason, Message: "no replacements here",
			}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("making the policy: %w", err)
	}
	_, err = admission.ValidatingAdmissionPolicyBindings().Create(ctx, &admissionv1.ValidatingAdmissionPolicyBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       admissionv1.ValidatingAdmissionPolicyBindingSpec{PolicyName: name, ValidationActions: []admissionv1.ValidationAction{admissionv1.Deny}},
	}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("binding the policy: %w", err)
	}
	try := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "try", Labels: map[string]string{labelRefused: "true"}, Annotations: map[string]string{requeue.AnnotationRequeueOf: "x"}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "try", Image: "try"}}},
	}
	return wait.PollUntilContextTimeout(ctx, 50*time.Millisecond, world.Patience, true, func(ctx context.Context) (bool, error) {
		_, err := client.CoreV1().Pods(metav1.NamespaceDefault).Create(ctx, try, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return err != nil, nil
	})
}

// scarce is a resource that only the pods of one chain ask for, so that a quota is about them alone.
func scarce(chain string) corev1.ResourceName {
	return corev1.ResourceName("airflow-requeue.test/" + chain)
}

func askForScarce(task *executor.Task) {
	name := scarce(task.Name)
	task.Mutate = func(pod *corev1.Pod) {
		one := corev1.ResourceList{name: resource.MustParse("1")}
		pod.Spec.Containers[0].Resources = corev1.ResourceRequirements{Requests: one, Limits: one}
	}
}

// fillQuota lets the chain have one pod, the one that it has. No controller counts here: what is used is written by hand.
func (p *play) fillQuota() {
	p.t.Helper()
	quotas := p.Client.CoreV1().ResourceQuotas(p.Namespace)
	one := corev1.ResourceList{corev1.ResourceName("requests." + string(scarce(p.name))): resource.MustParse("1")}
	quota, err := quotas.Create(p.t.Context(), &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Name: p.name}, Spec: corev1.ResourceQuotaSpec{Hard: one}}, metav1.CreateOptions{})
	require.NoError(p.t, err)
	quota.Status = corev1.ResourceQuotaStatus{Hard: one, Used: one}
	_, err = quotas.UpdateStatus(p.t.Context(), quota, metav1.UpdateOptions{})
	require.NoError(p.t, err)
	require.Eventually(p.t, func() bool { return p.tryScarce() != nil }, world.Patience, 200*time.Millisecond, "the quota is enforced")
}

// liftQuota lets the chain have more pods.
func (p *play) liftQuota() {
	p.t.Helper()
	require.NoError(p.t, p.Client.CoreV1().ResourceQuotas(p.Namespace).Delete(p.t.Context(), p.name, metav1.DeleteOptions{}))
}

// tryScarce is how the API server would answer the create of one more pod of the chain.
func (p *play) tryScarce() error {
	one := corev1.ResourceList{scarce(p.name): resource.MustParse("1")}
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: p.name + "-try"},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "try", Image: "try",
			Resources: corev1.ResourceRequirements{Requests: one, Limits: one}}}},
	}
	_, err := p.Client.CoreV1().Pods(p.Namespace).Create(p.t.Context(), pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	return err
}

// untilAttachedAgain waits for the pod to be Airflow's again: its replacement was refused for now.
func (p *play) untilAttachedAgain() {
	p.t.Helper()
	p.until(p.name, "attached again", func(pod *corev1.Pod) bool {
		return pod != nil && requeue.Attached(pod) && !requeue.Detached(pod) && pod.Annotations[requeue.AnnotationReason] != ""
	})
}
