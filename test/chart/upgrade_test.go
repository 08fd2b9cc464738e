package chart_test

import (
	"fmt"
	"maps"
	"testing"

	"github.com/stretchr/testify/require"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/util/cert"

	"github.com/airflow-requeue/airflow-requeue/internal/programs"
	"github.com/airflow-requeue/airflow-requeue/internal/rendered"
)

// TestPodsInFlightAreSettledAcrossTwoVersions installs the last version by its own manifests, and goes to this one and back, a
// program at a time. Each kind of outcome is seen between this watcher and the last webhook, and between the last watcher
// and this webhook: whichever program is first, on the way there and on the way back.
func TestPodsInFlightAreSettledAcrossTwoVersions(t *testing.T) {
	t.Parallel()
	last := lastVersion(t)
	a := newAirflow(t)
	maps.Copy(a.played.Programs, images("last", last.built))
	maps.Copy(a.played.Programs, images("this", built))
	secrets := a.certificate()
	before, after := secrets.of(last, "last"), secrets.of(thisVersion(t), "this")

	a.roll(before)
	stamped := a.flying("last-webhook")
	a.roll(after.but("webhook")) // watcher first
	a.settle(stamped)
	a.settle(a.flying("last-webhook-again")) // held and let through by it while this watcher leads

	a.roll(after)
	stamped = a.flying("this-webhook")
	a.roll(before.but("webhook")) // a rollback, and the same as an upgrade of the webhook first
	a.settle(stamped)
	a.settle(a.flying("this-webhook-again"))
	a.roll(before)
	a.settle(a.flying("last"))
}

// flying are held pods, one for each kind of outcome.
func (a *airflow) flying(name string) map[string]*corev1.Pod {
	a.T.Helper()
	programs.UntilStamping(a.T, a.scheduler) // a leader that has just come must have read a row
	pods := map[string]*corev1.Pod{}
	for _, o := range outcomes() {
		pods[o.name] = a.held(name + "-" + o.name)
	}
	return pods
}

func (a *airflow) settle(pods map[string]*corev1.Pod) {
	a.T.Helper()
	for _, o := range outcomes() {
		o.play(a, pods[o.name])
		o.until(a, pods[o.name])
	}
}

// deployed are the objects of a version.
type deployed rendered.Objects

// but leaves out a program's Deployment: the other's is changed first.
func (d deployed) but(program string) deployed {
	var rest deployed
	for _, u := range d {
		if u.GetKind() != "Deployment" || u.GetName() != "airflow-requeue-"+program {
			rest = append(rest, u)
		}
	}
	return rest
}

// roll applies objects, and returns when the Deployments have rolled out.
func (a *airflow) roll(d deployed) {
	a.T.Helper()
	rendered.Apply(a.T, servers.Config(), rendered.Objects(d))
	for _, u := range rendered.Objects(d).Of("Deployment") {
		a.run(kubectl, "rollout", "status", "deployment/"+u.GetName(), "--timeout=5m")
	}
}

// provided is what the webhook serves, in Secret airflow-requeue-webhook-tls: the manifests' cert-manager is not there.
type provided struct {
	*airflow
	authority []byte
}

func (a *airflow) certificate() provided {
	a.T.Helper()
	authority, key, err := cert.GenerateSelfSignedCertKey("airflow-requeue-webhook."+a.Namespace+".svc", nil, nil)
	require.NoError(a.T, err)
	for name, content := range map[string]map[string]string{
		"airflow-requeue-webhook-tls":  {"tls.crt": string(authority), "tls.key": string(key)},
		"airflow-requeue-signing-keys": {"current": "k1", "k1": "a secret of the tests, 32 bytes or more"},
	} {
		_, err = a.Client.CoreV1().Secrets(a.Namespace).Create(a.T.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}, StringData: content}, metav1.CreateOptions{})
		require.NoError(a.T, err)
	}
	return provided{a, authority}
}

// of are a version's manifests, patient enough for a busy machine.
func (p provided) of(v version, tag string) deployed {
	t := p.T
	all := rendered.Overlay(t, kustomize, v.manifests, rendered.Overlaid{Resource: "default", Transformers: []string{"wiring"},
		Namespace: p.Namespace, Installation: p.Namespace,
		More: fmt.Sprintf("images: [{name: ghcr.io/airflow-requeue/watcher, newTag: %[1]s}, {name: ghcr.io/airflow-requeue/webhook, newTag: %[1]s}]", tag)}).
		But("Certificate", "Issuer")
	patience := map[string][]string{"airflow-requeue-watcher": programs.Steady(), "airflow-requeue-webhook": {"--lease-max-age=2m", "--no-leader-release-after=3m"}}
	for i, u := range all {
		switch u.GetKind() {
		case "Deployment":
			d := rendered.Decode[appsv1.Deployment](t, u)
			c := &d.Spec.Template.Spec.Containers[0]
			c.Args = append(c.Args, patience[u.GetName()]...)
			all[i] = undecode(p, d)
		case "MutatingWebhookConfiguration":
			m := rendered.Decode[admissionregistrationv1.MutatingWebhookConfiguration](t, u)
			seconds := int32(30)
			m.Webhooks[0].TimeoutSeconds, m.Webhooks[0].ClientConfig.CABundle = &seconds, p.authority
			all[i] = undecode(p, m)
		}
	}
	return deployed(all)
}

func undecode(p provided, typed any) *unstructured.Unstructured {
	p.T.Helper()
	object, err := runtime.DefaultUnstructuredConverter.ToUnstructured(typed)
	require.NoError(p.T, err)
	delete(object, "status")
	return &unstructured.Unstructured{Object: object}
}
