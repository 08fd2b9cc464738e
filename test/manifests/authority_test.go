package manifests_test

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	"github.com/airflow-requeue/airflow-requeue/internal/selfsigned"
)

// selfSigned is the installation without cert-manager.
func selfSigned(t *testing.T, namespace string) objects {
	t.Helper()
	return overlay(t, "self-signed", []string{"wiring"}, namespace, namespace)
}

// ofAuthority are the rights that a webhook without cert-manager has more than others.
func ofAuthority(t *testing.T) []right {
	t.Helper()
	var all []right
	for _, r := range grantingIn(t, "self-signed", "webhook") {
		if r.resource == "secrets" || r.resource == "mutatingwebhookconfigurations" {
			all = append(all, r)
		}
	}
	require.Len(t, all, 6)
	return all
}

// keepAuthority does all that a webhook without cert-manager does: it fills the Secret, has its authority trusted, serves by it, and
// follows when it is made anew.
func (s *site) keepAuthority(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	source, err := selfsigned.New(selfsigned.Options{Namespace: s.Namespace, Secret: "airflow-requeue-ca", Service: "airflow-requeue-webhook",
		Configuration: s.Namespace, Config: s.config, Log: s.log, Clock: clock.RealClock{}})
	if err != nil {
		cancel()
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- source.Run(ctx) }()
	trusted := func(authorities int) error {
		return until(ctx, fmt.Sprintf("%d authorities", authorities), func() (bool, error) {
			c, err := s.Client.AdmissionregistrationV1().MutatingWebhookConfigurations().Get(ctx, s.Namespace, metav1.GetOptions{})
			if err != nil {
				return false, err
			}
			return len(certificatesOf(c.Webhooks[0].ClientConfig.CABundle)) == authorities && source.Ready() == nil, nil
		})
	}
	err = trusted(1)
	if err == nil {
		_, err = s.Client.CoreV1().Secrets(s.Namespace).Patch(ctx, "airflow-requeue-ca", types.MergePatchType, []byte(`{"data":null}`), metav1.PatchOptions{})
	}
	if err == nil {
		err = trusted(2)
	}
	cancel()
	if stopped := <-ended; err == nil {
		err = stopped
	}
	return err
}

func TestAWebhookWithoutCertManagerNeedsAllOfItsRightsAndNoOthers(t *testing.T) {
	prepare := func(t *testing.T, taken ...right) (context.Context, *site) {
		t.Helper()
		t.Parallel()
		ctx, s := newSite(t, "airflow-requeue-webhook")
		all := selfSigned(t, s.Namespace)
		for _, r := range taken {
			r.take(t, all)
		}
		granted(t, s.Namespace, all.rights())
		applyAll(t, all.of("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding", "Secret", "MutatingWebhookConfiguration"))
		return ctx, s
	}
	t.Run("with all rights nothing is refused", func(t *testing.T) {
		ctx, s := prepare(t)
		require.NoError(t, s.keepAuthority(ctx))
		require.Empty(t, s.refusals.list())
	})
	for _, r := range ofAuthority(t) {
		t.Run(fmt.Sprintf("without %s it is", r), func(t *testing.T) {
			ctx, s := prepare(t, r)
			err := s.keepAuthority(ctx)
			refused := s.refusals.list()
			require.NotEmpty(t, refused, "it ended with: %v", err)
			for _, what := range refused {
				require.Contains(t, what, r.refusal())
			}
		})
	}
}

func TestAThiefOfTheWebhooksAccountGetsNoMoreThanTheAuthority(t *testing.T) {
	namespace(t, "trusting", nil)
	all := selfSigned(t, "trusting")
	granted(t, "trusting", all.rights())
	applyAll(t, all)
	t.Run("no other Secret, no token, no other configuration", func(t *testing.T) {
		type request = authorizationv1.ResourceAttributes
		const group, configurations = "admissionregistration.k8s.io", "mutatingwebhookconfigurations"
		for what, asked := range map[string]request{
			"read another Secret":                {Namespace: "trusting", Verb: "get", Resource: "secrets", Name: "airflow-metadata"},
			"read all Secrets":                   {Namespace: "trusting", Verb: "list", Resource: "secrets"},
			"read such a Secret elsewhere":       {Namespace: "another", Verb: "get", Resource: "secrets", Name: "airflow-requeue-ca"},
			"make a Secret, so a token":          {Namespace: "trusting", Verb: "create", Resource: "secrets"},
			"delete the Secret":                  {Namespace: "trusting", Verb: "delete", Resource: "secrets", Name: "airflow-requeue-ca"},
			"make a webhook":                     {Verb: "create", Group: group, Resource: configurations},
			"change another's webhook":           {Verb: "patch", Group: group, Resource: configurations, Name: "another"},
			"replace its own":                    {Verb: "update", Group: group, Resource: configurations, Name: "trusting"},
			"delete its own":                     {Verb: "delete", Group: group, Resource: configurations, Name: "trusting"},
			"change the policy that confines it": {Verb: "patch", Group: group, Resource: "validatingadmissionpolicies", Name: "trusting.webhook"},
		} {
			assert.False(t, allowed(t, "trusting", "airflow-requeue-webhook", asked), what)
		}
	})
	t.Run("of its own configuration the caBundle alone", func(t *testing.T) {
		config, err := servers.User("system:serviceaccount:trusting:airflow-requeue-webhook")
		require.NoError(t, err)
		webhook := clientOf(t, config)
		change := func(patch string) error {
			_, err := webhook.AdmissionregistrationV1().MutatingWebhookConfigurations().Patch(t.Context(), "trusting", types.JSONPatchType, []byte(patch),
				metav1.PatchOptions{DryRun: []string{metav1.DryRunAll}})
			return err
		}
		const refused = "may change the caBundle of its configuration, and nothing else"
		require.NoError(t, until(t.Context(), "the policy", func() (bool, error) {
			return change(`[{"op":"add","path":"/metadata/labels/team","value":"red"}]`) != nil, nil
		}))
		everything := `[{"operations":["*"],"apiGroups":["*"],"apiVersions":["*"],"resources":["*"]}]`
		for path, value := range map[string]string{
			"/metadata/labels/team": `"red"`, "/metadata/annotations": `{"cert-manager.io/inject-ca-from":"a/b"}`, "/metadata/finalizers": `["example.com/stay"]`,
			"/metadata/ownerReferences":  `[{"apiVersion":"v1","kind":"Namespace","name":"trusting","uid":"1"}]`,
			"/webhooks/0/name":           `"another.example.com"`,
			"/webhooks/0/rules":          everything,
			"/webhooks/0/objectSelector": `{}`, "/webhooks/0/namespaceSelector": `{}`,
			"/webhooks/0/clientConfig":                       `{"url":"https://attacker.example.com"}`,
			"/webhooks/0/clientConfig/service/name":          `"another"`,
			"/webhooks/0/failurePolicy":                      `"Fail"`,
			"/webhooks/0/matchPolicy":                        `"Exact"`,
			"/webhooks/0/timeoutSeconds":                     `30`,
			"/webhooks/0/reinvocationPolicy":                 `"Never"`,
			"/webhooks/0/sideEffects":                        `"NoneOnDryRun"`,
			"/webhooks/0/admissionReviewVersions":            `["v1","v2"]`,
			"/webhooks/0/matchConditions":                    `[{"name":"all","expression":"true"}]`,
			"/webhooks/0/namespaceSelector/matchExpressions": `[{"key":"a","operator":"Exists"}]`,
		} {
			err := change(fmt.Sprintf(`[{"op":"add","path":%q,"value":%s}]`, path, value))
			assert.ErrorContains(t, err, refused, path)
		}
		first := `{"name":"first.example.com","clientConfig":{"url":"https://attacker.example.com"},"sideEffects":"None","admissionReviewVersions":["v1"],"rules":` + everything + `}`
		assert.ErrorContains(t, change(`[{"op":"add","path":"/webhooks/-","value":`+first+`}]`), refused)
		assert.ErrorContains(t, change(`[{"op":"remove","path":"/webhooks/0"}]`), refused)
		certificate, _ := serving(t, "anything")
		bundle, err := json.Marshal([]byte(certificate))
		require.NoError(t, err)
		assert.NoError(t, change(fmt.Sprintf(`[{"op":"add","path":"/webhooks/0/clientConfig/caBundle","value":%s}]`, bundle)))
	})
}

func TestTheSecretOfTheAuthorityIsShippedWithoutData(t *testing.T) {
	secret := into[corev1.Secret](t, build(t, folder(t, "self-signed")), "Secret", "airflow-requeue-ca")
	assert.Empty(t, secret.Data)
	assert.Empty(t, secret.StringData)
	assert.Empty(t, secret.Type, "one that cert-manager made has another, which can't be changed")
}
