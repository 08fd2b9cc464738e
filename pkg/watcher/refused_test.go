package watcher_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/airflow-requeue/airflow-requeue/internal/executor"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// quota gives the namespace a quota of pods that is used up or not. No controller counts here: its status is set by hand.
func (w *world) quota(usedUp bool) {
	w.t.Helper()
	quotas := w.client.CoreV1().ResourceQuotas(w.namespace)
	limit := corev1.ResourceList{corev1.ResourcePods: resource.MustParse("1000")}
	used := "0"
	if usedUp {
		used = "1000"
	}
	q := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: "pods"}, Spec: corev1.ResourceQuotaSpec{Hard: limit}}
	if _, err := quotas.Get(w.ctx, "pods", metav1.GetOptions{}); err != nil {
		_, err = quotas.Create(w.ctx, q, metav1.CreateOptions{})
		require.NoError(w.t, err)
	}
	_, err := quotas.Patch(w.ctx, "pods", types.MergePatchType,
		[]byte(`{"status":{"hard":{"pods":"1000"},"used":{"pods":"`+used+`"}}}`), metav1.PatchOptions{}, "status")
	require.NoError(w.t, err)
	w.eventually("the quota is enforced", func() bool { return (w.try() != nil) == usedUp })
}

// try is how the API server would answer the create of a replacement-like pod.
func (w *world) try() error {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "try", Annotations: map[string]string{requeue.AnnotationRequeueOf: "try"}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "try", Image: "try"}}},
	}
	_, err := w.client.CoreV1().Pods(w.namespace).Create(w.ctx, pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	return err
}

// forbid has the API server refuse every replacement in the namespace.
func (w *world) forbid(reason metav1.StatusReason, message string) {
	w.t.Helper()
	admission := w.client.AdmissionregistrationV1()
	name := w.namespace + ".airflow-requeue.test"
	_, err := admission.ValidatingAdmissionPolicies().Create(w.ctx, &admissionv1.ValidatingAdmissionPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: admissionv1.ValidatingAdmissionPolicySpec{
			MatchConstraints: &admissionv1.MatchResources{
				NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: w.namespace}},
				ResourceRules: []admissionv1.NamedRuleWithOperations{{RuleWithOperations: admissionv1.RuleWithOperations{
					Operations: []admissionv1.OperationType{admissionv1.Create},
					Rule:       admissionv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods"}},
				}}},
			},
			Validations: []admissionv1.Validation{{
				Expression: `!("` + requeue.AnnotationRequeueOf + `" in object.metadata.?annotations.orValue({}))`, Reason: &reason, Message: message,
			}},
		},
	}, metav1.CreateOptions{})
	require.NoError(w.t, err)
	_, err = admission.ValidatingAdmissionPolicyBindings().Create(w.ctx, &admissionv1.ValidatingAdmissionPolicyBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       admissionv1.ValidatingAdmissionPolicyBindingSpec{PolicyName: name, ValidationActions: []admissionv1.ValidationAction{admissionv1.Deny}},
	}, metav1.CreateOptions{})
	require.NoError(w.t, err)
	w.eventually("the policy is enforced", func() bool { return w.try() != nil })
}

func TestAReplacementThatTheQuotaRefusesIsTriedAgainWithThePodAttachedMeanwhile(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.run()
	task := w.queued("quota")
	pod := w.submit(task)
	w.quota(true)
	_, err := w.kubelet.Reject(t.Context(), pod, "NodeAffinity", "no")
	require.NoError(t, err)
	w.until(pod.Name, "attached again", func(p *corev1.Pod) bool {
		return requeue.Attached(p) && p.Annotations[requeue.AnnotationReason] != ""
	})
	w.untilEvent(pod, "Refused", "exceeded quota")
	require.True(t, requeue.Held(w.now(pod.Name)))
	w.passing(time.Second, "the second try", func() bool { return p.wire.count("POST") > 1 })
	w.until(pod.Name, "attached again", requeue.Attached)
	require.Empty(t, w.executor.saw())

	w.quota(false)
	w.passing(time.Second, "the replacement", func() bool { return isFree(w.history.Latest(pod.Name + "-r1")) })
	w.checkReplacement(w.now(pod.Name+"-r1"), pod, task, 1)
	w.checkTombstone(w.untilUntracked(pod.Name))
	w.nothingSeen()
}

func TestAReplacementThatIsRefusedForGoodMakesAReport(t *testing.T) {
	t.Parallel()
	for _, reason := range []metav1.StatusReason{metav1.StatusReasonForbidden, metav1.StatusReasonInvalid} {
		t.Run(string(reason), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			p := w.run()
			w.forbid(reason, "replacements are not wanted here")
			task := w.queued("refused")
			pod, err := w.kubelet.Reject(t.Context(), w.submit(task), "NodeAffinity", "no")
			require.NoError(t, err)
			pod = w.untilUntracked(pod.Name)
			require.Equal(t, "1", pod.Labels[requeue.LabelWorker], "the detach is undone")
			require.NotContains(t, pod.Labels, requeue.LabelExecutorDone)
			require.NotContains(t, pod.Labels, requeue.LabelHold)
			w.seenOnly("failed " + pod.Name)
			w.untilEvent(pod, "Refused", "replacements are not wanted here")
			require.Equal(t, []string{"PATCH " + pod.Name, "POST", "PATCH " + pod.Name, "LIST", "PATCH " + pod.Name}, p.wire.requests(),
				"one try, and a mark and a live look for a replacement before the detach is undone")
			require.Len(t, w.pods(task), 1)
		})
	}
}

func TestAReplacementGetsAHashedNameWhereAStrangerHasItsOwn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.run()
	task := w.queued("stranger")
	pod := w.submit(task)
	stranger := executor.NewTask("other", "other", "manual__1", time.Now().UTC())
	stranger.Name = pod.Name + "-r1"
	w.unheld(stranger)
	_, err := w.kubelet.Reject(t.Context(), pod, "NodeAffinity", "no")
	require.NoError(t, err)
	w.checkTombstone(w.untilUntracked(pod.Name))
	pods := names(w.pods(task))
	require.Len(t, pods, 2)
	require.Regexp(t, `^`+pod.Name+`-r1-[0-9a-f]{8}$`, pods[1])
	w.checkReplacement(w.untilFree(pods[1]), pod, task, 1)
	w.nothingSeen()
}

func TestAReplacementThatAdmissionStripsIsDeletedAndThePodReported(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	task := w.queued("stripped")
	pod, err := w.kubelet.Reject(t.Context(), w.submit(task), "NodeAffinity", "no")
	require.NoError(t, err)
	p := w.run(func(p *process) { p.wire.strip = true })
	w.untilUntracked(pod.Name)
	w.untilGone(pod.Name + "-r1")
	w.seenOnly("failed " + pod.Name)
	w.untilEvent(pod, "Refused", "admission took the stamps off the replacement")
	require.Equal(t, 1, p.wire.count("POST"))
}

func TestANamespaceThatIsDeletedGetsItsFinalizersBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.run()
	pending := w.submit(w.queued("pending"))
	ran := w.started(w.submit(w.queued("ran")))
	require.NoError(t, w.client.CoreV1().Namespaces().Delete(t.Context(), w.namespace, metav1.DeleteOptions{}))
	for _, pod := range []*corev1.Pod{pending, ran} {
		left := w.untilUntracked(pod.Name)
		require.Equal(t, requeue.HoldValue, left.Labels[requeue.LabelHold], "touch nothing else")
		w.delete(pod.Name) // as the namespace controller does next
	}
	w.untilGone(pending.Name)
	require.NoError(t, w.kubelet.Terminate(t.Context(), ran, 143))
	w.untilGone(ran.Name)
	require.Empty(t, w.replacementsOf(pending))
	require.Empty(t, w.replacementsOf(ran))
	require.Empty(t, w.executor.saw())
}

func TestACreateThatFindsTheNamespaceTerminatingLetsThePodGo(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	task := w.queued("terminating")
	pod, err := w.kubelet.Reject(t.Context(), w.submit(task), "NodeAffinity", "no")
	require.NoError(t, err)
	reached, goOn := w.paused(2) // the create
	w.untilReached(reached)
	require.NoError(t, w.client.CoreV1().Namespaces().Delete(t.Context(), w.namespace, metav1.DeleteOptions{}))
	goOn()
	w.untilUntracked(pod.Name)
	require.Empty(t, w.replacementsOf(pod))
	require.Empty(t, w.executor.saw())
}
