package manifests_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// TestAnAccountHasTheseRightsAndNoOthers asks the API server for all that an account may do in a namespace, less what
// every account may.
func TestAnAccountHasTheseRightsAndNoOthers(t *testing.T) {
	namespace(t, "strict", nil)
	granted(t, "strict", moved(t, "strict", "strict-requeue"))
	accounts := map[string]kubernetes.Interface{}
	for _, account := range []string{"airflow-requeue-watcher", "airflow-requeue-webhook", "airflow-requeue-release", "nobody"} {
		cfg, err := servers.User("system:serviceaccount:strict:" + account)
		require.NoError(t, err)
		accounts[account], err = kubernetes.NewForConfig(cfg)
		require.NoError(t, err)
	}
	elsewhere := []string{"get mutatingwebhookconfigurations.admissionregistration.k8s.io strict-requeue", "list namespaces strict", "watch namespaces strict"}
	tests := []struct {
		account, namespace string
		want               []string
	}{
		{"airflow-requeue-watcher", "strict", []string{
			"create events.events.k8s.io",
			"create leases.coordination.k8s.io",
			"create pods",
			"delete pods",
			"get leases.coordination.k8s.io strict-requeue",
			"get mutatingwebhookconfigurations.admissionregistration.k8s.io strict-requeue",
			"get pods",
			"get secrets airflow-requeue-signing-keys",
			"list namespaces strict",
			"list pods",
			"patch pods",
			"patch pods/status",
			"patch secrets airflow-requeue-signing-keys",
			"stamp pods.airflow-requeue.dev",
			"update leases.coordination.k8s.io strict-requeue",
			"watch namespaces strict",
			"watch pods",
		}},
		{"airflow-requeue-watcher", metav1.NamespaceDefault, elsewhere},
		{"airflow-requeue-watcher", metav1.NamespaceSystem, elsewhere},
		{"airflow-requeue-webhook", "strict", []string{
			"delete pods",
			"get leases.coordination.k8s.io strict-requeue",
			"get pods",
			"list pods",
			"patch pods",
			"patch pods/status",
			"stamp pods.airflow-requeue.dev",
		}},
		{"airflow-requeue-webhook", metav1.NamespaceDefault, []string{}},
		{"airflow-requeue-webhook", metav1.NamespaceSystem, []string{}},
		{"airflow-requeue-release", "strict", []string{
			"delete mutatingwebhookconfigurations.admissionregistration.k8s.io strict-requeue",
			"delete pods",
			"get mutatingwebhookconfigurations.admissionregistration.k8s.io strict-requeue",
			"get pods",
			"list pods",
			"patch pods",
			"patch pods/status",
			"stamp pods.airflow-requeue.dev",
		}},
		{"airflow-requeue-release", metav1.NamespaceSystem, []string{
			"delete mutatingwebhookconfigurations.admissionregistration.k8s.io strict-requeue",
			"get mutatingwebhookconfigurations.admissionregistration.k8s.io strict-requeue",
		}},
	}
	for _, test := range tests {
		t.Run(test.account+" in "+test.namespace, func(t *testing.T) {
			usual := rights(t, accounts["nobody"], test.namespace)
			got := []string{}
			for _, right := range rights(t, accounts[test.account], test.namespace) {
				if !slices.Contains(usual, right) {
					got = append(got, right)
				}
			}
			assert.Equal(t, test.want, got)
		})
	}
}

// rights are what an account may do in a namespace.
func rights(t *testing.T, account kubernetes.Interface, namespace string) []string {
	t.Helper()
	review, err := account.AuthorizationV1().SelfSubjectRulesReviews().Create(t.Context(),
		&authorizationv1.SelfSubjectRulesReview{Spec: authorizationv1.SelfSubjectRulesReviewSpec{Namespace: namespace}}, metav1.CreateOptions{})
	require.NoError(t, err)
	require.False(t, review.Status.Incomplete)
	var all []string
	for _, rule := range review.Status.ResourceRules {
		for _, verb := range rule.Verbs {
			for _, group := range rule.APIGroups {
				for _, resource := range rule.Resources {
					if group != "" {
						resource += "." + group
					}
					if len(rule.ResourceNames) > 0 {
						resource += " " + strings.Join(rule.ResourceNames, " ")
					}
					all = append(all, verb+" "+resource)
				}
			}
		}
	}
	for _, rule := range review.Status.NonResourceRules {
		for _, verb := range rule.Verbs {
			all = append(all, fmt.Sprint(verb, " ", rule.NonResourceURLs))
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// TestWhatAThiefOfAnAccountCanNotDo names the worst that a stolen token could be good for.
func TestWhatAThiefOfAnAccountCanNotDo(t *testing.T) {
	namespace(t, "robbed", nil)
	granted(t, "robbed", moved(t, "robbed", "robbed-requeue"))
	type request = authorizationv1.ResourceAttributes
	tests := map[string]request{
		"read Secrets":                    {Namespace: "robbed", Verb: "get", Resource: "secrets"},
		"read another Secret":             {Namespace: "robbed", Verb: "get", Resource: "secrets", Name: "airflow-metadata"},
		"read keys elsewhere":             {Namespace: metav1.NamespaceSystem, Verb: "get", Resource: "secrets", Name: "airflow-requeue-signing-keys"},
		"list Secrets":                    {Namespace: "robbed", Verb: "list", Resource: "secrets"},
		"make a Secret":                   {Namespace: "robbed", Verb: "create", Resource: "secrets"},
		"change another Secret":           {Namespace: "robbed", Verb: "patch", Resource: "secrets", Name: "airflow-metadata"},
		"delete the keys":                 {Namespace: "robbed", Verb: "delete", Resource: "secrets", Name: "airflow-requeue-signing-keys"},
		"run a command in a pod":          {Namespace: "robbed", Verb: "create", Resource: "pods", Subresource: "exec"},
		"read a pod's log":                {Namespace: "robbed", Verb: "get", Resource: "pods", Subresource: "log"},
		"put a container into a pod":      {Namespace: "robbed", Verb: "patch", Resource: "pods", Subresource: "ephemeralcontainers"},
		"bind a pod to a node":            {Namespace: "robbed", Verb: "create", Resource: "pods", Subresource: "binding"},
		"get a token for another account": {Namespace: "robbed", Verb: "create", Resource: "serviceaccounts", Subresource: "token"},
		"delete all pods at once":         {Namespace: "robbed", Verb: "deletecollection", Resource: "pods"},
		"make pods in another namespace":  {Namespace: metav1.NamespaceSystem, Verb: "create", Resource: "pods"},
		"see pods in another namespace":   {Namespace: metav1.NamespaceSystem, Verb: "list", Resource: "pods"},
		"see pods of all namespaces":      {Verb: "list", Resource: "pods"},
		"see all namespaces":              {Verb: "list", Resource: "namespaces"},
		"see another namespace":           {Verb: "watch", Resource: "namespaces", Name: metav1.NamespaceSystem},
		"change its namespace":            {Namespace: "robbed", Verb: "patch", Resource: "namespaces", Name: "robbed"},
		"take another Lease":              {Namespace: "robbed", Verb: "update", Group: "coordination.k8s.io", Resource: "leases", Name: "another"},
		"give itself rights":              {Namespace: "robbed", Verb: "patch", Group: "rbac.authorization.k8s.io", Resource: "roles", Name: "airflow-requeue-watcher"},
		"see another's webhook":           {Verb: "get", Group: "admissionregistration.k8s.io", Resource: "mutatingwebhookconfigurations", Name: "another"},
		"delete another's webhook":        {Verb: "delete", Group: "admissionregistration.k8s.io", Resource: "mutatingwebhookconfigurations", Name: "another"},
		"change the webhook":              {Verb: "patch", Group: "admissionregistration.k8s.io", Resource: "mutatingwebhookconfigurations", Name: "robbed-requeue"},
	}
	for what, asked := range tests {
		for _, account := range []string{"airflow-requeue-watcher", "airflow-requeue-webhook", "airflow-requeue-release"} {
			t.Run(account+" can not "+what, func(t *testing.T) {
				require.False(t, allowed(t, "robbed", account, asked))
			})
		}
	}
}

func allowed(t *testing.T, namespace, account string, asked authorizationv1.ResourceAttributes) bool {
	t.Helper()
	review, err := admin(t).AuthorizationV1().SubjectAccessReviews().Create(t.Context(), &authorizationv1.SubjectAccessReview{
		Spec: authorizationv1.SubjectAccessReviewSpec{
			User:               "system:serviceaccount:" + namespace + ":" + account,
			Groups:             []string{"system:serviceaccounts", "system:serviceaccounts:" + namespace, "system:authenticated"},
			ResourceAttributes: &asked,
		}}, metav1.CreateOptions{})
	require.NoError(t, err)
	return review.Status.Allowed
}
