package preflight

import (
	"context"
	"slices"
	"strings"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

const registerToDo = "apply manifests/default, whose webhook configuration comes last; until then pods start unheld, as without airflow-requeue"

// webhook looks at the installation's webhook configuration, and at the namespaces that it is to take pods of.
func (c *checker) webhook(ctx context.Context) Finding {
	config, err := c.client.AdmissionregistrationV1().MutatingWebhookConfigurations().Get(ctx, c.Installation, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return fail(registerToDo, "not registered: there is no MutatingWebhookConfiguration %s", c.Installation)
	case apierrors.IsForbidden(err):
		return warn("grant get on mutatingwebhookconfigurations/"+c.Installation+", as manifests/base/watcher-rights.yaml does",
			"can't be told: MutatingWebhookConfiguration %s may not be read", c.Installation)
	case err != nil:
		return c.untold(err)
	}
	var namespaces []corev1.Namespace
	for _, name := range c.Namespaces {
		// The watcher may list it, not get it.
		list, err := c.client.CoreV1().Namespaces().List(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + name})
		if err != nil {
			return c.untold(err)
		}
		if len(list.Items) == 0 {
			return fail("give --namespace where Airflow puts worker pods", "there is no namespace %s", name)
		}
		namespaces = append(namespaces, list.Items...)
	}
	found, hook := judgeConfiguration(config, namespaces)
	c.hook = hook
	return found
}

// judgeConfiguration says whether worker pods of all the namespaces are sent to the webhook, and which entry sends them.
func judgeConfiguration(config *admissionregistrationv1.MutatingWebhookConfiguration, namespaces []corev1.Namespace) (Finding, *admissionregistrationv1.MutatingWebhook) {
	i := slices.IndexFunc(config.Webhooks, func(h admissionregistrationv1.MutatingWebhook) bool {
		return slices.ContainsFunc(h.Rules, createsPods) && matches(h.ObjectSelector, map[string]string{requeue.LabelKubernetesExecutor: "True"})
	})
	if i < 0 {
		return fail("apply manifests/default again", "MutatingWebhookConfiguration %s takes no worker pods: it is to have a rule for CREATE of pods, "+
			"and an objectSelector that takes %s=True", config.Name, requeue.LabelKubernetesExecutor), nil
	}
	hook := &config.Webhooks[i]
	var all, left []string
	for _, namespace := range namespaces {
		all = append(all, namespace.Name)
		if !matches(hook.NamespaceSelector, namespace.Labels) {
			left = append(left, namespace.Name)
		}
	}
	switch {
	case len(left) > 0:
		return fail("let the namespaceSelector of MutatingWebhookConfiguration "+config.Name+" take "+strings.Join(left, " and ")+
			", by label "+corev1.LabelMetadataName+"; or take it out of --namespace of webhook and watcher",
			"registered, but not for namespace %s", strings.Join(left, ", ")), hook
	case hook.FailurePolicy == nil || *hook.FailurePolicy != admissionregistrationv1.Ignore:
		return warn("set failurePolicy: Ignore", "registered for namespace %s, but where the webhook is gone no worker pod can be created",
			strings.Join(all, ", ")), hook
	}
	return ok("registered for namespace %s", strings.Join(all, ", ")), hook
}

func createsPods(rule admissionregistrationv1.RuleWithOperations) bool {
	has := func(list []string, values ...string) bool {
		return slices.ContainsFunc(list, func(v string) bool { return slices.Contains(values, v) })
	}
	return slices.ContainsFunc(rule.Operations, func(o admissionregistrationv1.OperationType) bool {
		return o == admissionregistrationv1.Create || o == admissionregistrationv1.OperationAll
	}) && has(rule.APIGroups, "", "*") && has(rule.APIVersions, "v1", "*") && has(rule.Resources, "pods", "*", "*/*") &&
		(rule.Scope == nil || *rule.Scope != admissionregistrationv1.ClusterScope)
}

func matches(selector *metav1.LabelSelector, set map[string]string) bool {
	if selector == nil {
		return true // the API server's default: everything
	}
	s, err := metav1.LabelSelectorAsSelector(selector)
	return err == nil && s.Matches(labels.Set(set))
}
