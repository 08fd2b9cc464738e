package manifests_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/cert"
	"k8s.io/utils/ptr"

	"github.com/airflow-requeue/airflow-requeue/internal/executor"
	"github.com/airflow-requeue/airflow-requeue/internal/history"
	"github.com/airflow-requeue/airflow-requeue/internal/programs"
	"github.com/airflow-requeue/airflow-requeue/internal/world"
	"github.com/airflow-requeue/airflow-requeue/pkg/mutate"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// node is where the pods under attack are bound to.
const node = "node-a"

// target is an Airflow with an installation as the manifests make it, its programs included, and those who attack it.
type target struct {
	*world.World
	events    *history.Events
	scheduler executor.Scheduler   // Airflow's, by a token of its account
	attacker  kubernetes.Interface // by a token of an account that may change pods
	node      kubernetes.Interface // the identity of the pods' node
	webhook   *admissionregistrationv1.WebhookClientConfig
}

// newTarget starts an installation, whose policy is bound or not, and returns when its webhook holds pods.
func newTarget(t *testing.T, guarded bool, built programs.Built) *target {
	t.Helper()
	w := world.New(t, servers.Config(), filepath.Join("..", "..", "pkg", "tidb", "testdata", "3.3.2-sqlite.sql"))
	all := moved(t, w.Namespace, w.Namespace)
	granted(t, w.Namespace, all.rights())
	if guarded {
		enforced(t, w.Namespace, all)
	}
	nodes, err := servers.User("system:node:"+node, "system:nodes")
	require.NoError(t, err)
	x := &target{World: w, events: history.WatchEvents(t, w.Client, w.Namespace, &history.Bell{}),
		scheduler: executor.Scheduler{Client: clientOf(t, account(t, w.Namespace, scheduler, schedulerRights)), Namespace: w.Namespace, JobID: 1},
		attacker:  clientOf(t, account(t, w.Namespace, attacker, attackerRights)), node: clientOf(t, nodes)}
	x.start(t, all, built)
	return x
}

// start runs both programs as their Deployments say, and has the API server ask the webhook.
func (x *target) start(t *testing.T, all objects, built programs.Built) {
	t.Helper()
	mounted := secrets(t, x.World)
	certificate, key, err := cert.GenerateSelfSignedCertKey("127.0.0.1", []net.IP{net.IPv4(127, 0, 0, 1)}, nil)
	require.NoError(t, err)
	mounted["airflow-requeue-webhook-tls"] = map[string]string{"tls.crt": string(certificate), "tls.key": string(key)}
	for name, flags := range map[string][]string{"watcher": programs.Steady(), "webhook": {"--airflow-user=anna@example.com", "--airflow-group=schedulers"}} {
		template := into[appsv1.Deployment](t, all, "Deployment", "airflow-requeue-"+name).Spec.Template
		c := newContainer(t, x.Namespace, template, template.Spec.Containers[0], mounted)
		c.args = append(c.args, flags...)
		c.start(t, built[name])
		if name == "webhook" {
			x.webhook = &admissionregistrationv1.WebhookClientConfig{CABundle: certificate,
				URL: ptr.To(fmt.Sprintf("https://127.0.0.1:%d%s", c.ports["https"], mutate.Path))}
		}
	}
	configuration := into[admissionregistrationv1.MutatingWebhookConfiguration](t, all, "MutatingWebhookConfiguration", x.Namespace)
	configuration.Webhooks[0].ClientConfig = *x.webhook
	configuration.Webhooks[0].TimeoutSeconds = ptr.To[int32](30) // a busy machine must let no pod through unheld
	_, err = x.Client.AdmissionregistrationV1().MutatingWebhookConfigurations().Create(t.Context(), configuration, metav1.CreateOptions{})
	require.NoError(t, err)
	t.Cleanup(x.unregister)
	require.NoError(t, until(t.Context(), "the webhook to hold pods", func() (bool, error) {
		pod, err := x.scheduler.Client.CoreV1().Pods(x.Namespace).Create(t.Context(), workerPod(x.Namespace, "probe"),
			metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return err == nil && requeue.Held(pod), err
	}))
}

// unregister has the API server ask the webhook no more: it can't be reached.
func (x *target) unregister() {
	_ = x.Client.AdmissionregistrationV1().MutatingWebhookConfigurations().Delete(x.T.Context(), x.Namespace, metav1.DeleteOptions{})
}

// held has Airflow submit a pod, which the webhook holds, and the scheduler bind it.
func (x *target) held(t *testing.T, taskID string, change ...func(*executor.Task)) *corev1.Pod {
	t.Helper()
	task := x.Queue(taskID)
	for _, c := range change {
		c(&task)
	}
	pod, err := x.scheduler.Create(t.Context(), task)
	require.NoError(t, err)
	require.True(t, requeue.Held(pod))
	pod, err = x.Kubelet.Bind(t.Context(), pod, node)
	require.NoError(t, err)
	return pod
}

// fate has a pod's kubelet reject it, and says what becomes of it: what it is replaced by, what Airflow is told, or that it is told
// nothing.
func (x *target) fate(t *testing.T, pod *corev1.Pod) string {
	t.Helper()
	_, err := x.Kubelet.Reject(t.Context(), pod, "NodeAffinity", "no")
	require.NoError(t, err)
	require.NoError(t, until(t.Context(), "the pod to be let go", func() (bool, error) {
		live, err := x.Client.CoreV1().Pods(pod.Namespace).Get(t.Context(), pod.Name, metav1.GetOptions{})
		return err == nil && !requeue.Tracked(live) && requeue.Ended(live), err
	}))
	all, err := x.Client.CoreV1().Pods(pod.Namespace).List(t.Context(), metav1.ListOptions{})
	require.NoError(t, err)
	for _, p := range all.Items {
		if requeue.RequeueOf(&p) == string(pod.UID) {
			return fmt.Sprintf("replaced by %s, as %s", p.Spec.Containers[0].Image, p.Spec.ServiceAccountName)
		}
	}
	if !x.sawEnd(t, pod) {
		return "kept from Airflow"
	}
	require.NoError(t, until(t.Context(), "an Event", func() (bool, error) { return len(x.events.On(pod)) > 0, nil }))
	return strings.Join(x.events.On(pod), "\n")
}

// sawEnd reports whether the executor has seen the end of a pod, when it has seen that of another that ended later.
func (x *target) sawEnd(t *testing.T, pod *corev1.Pod) bool {
	t.Helper()
	later, err := x.Client.CoreV1().Pods(x.Namespace).Create(t.Context(), workerPod(x.Namespace, "after-"+pod.Name), metav1.CreateOptions{})
	require.NoError(t, err)
	_, err = x.Kubelet.Fail(t.Context(), later)
	require.NoError(t, err)
	require.NoError(t, until(t.Context(), "the executor to see a later end", func() (bool, error) { return len(x.SawOfChain(later.Name)) > 0, nil }))
	return len(x.SawOfChain(pod.Name)) > 0
}

// ask is a request to the webhook that does not come from the API server. It returns the annotations that the answer puts on the
// pod.
func (x *target) ask(t *testing.T, user string, pod *corev1.Pod) map[string]string {
	t.Helper()
	pod.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}
	raw, err := json.Marshal(pod)
	require.NoError(t, err)
	review := &admissionv1.AdmissionReview{TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"}}
	review.Request = &admissionv1.AdmissionRequest{UID: "1", Kind: metav1.GroupVersionKind{Version: "v1", Kind: "Pod"}, Operation: admissionv1.Create,
		Resource: metav1.GroupVersionResource{Version: "v1", Resource: "pods"}, Namespace: pod.Namespace, Name: pod.Name,
		UserInfo: authenticationv1.UserInfo{Username: user}}
	review.Request.Object.Raw = raw
	body, err := json.Marshal(review)
	require.NoError(t, err)
	authorities := x509.NewCertPool()
	require.True(t, authorities.AppendCertsFromPEM(x.webhook.CABundle))
	client := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: authorities, MinVersion: tls.VersionTLS13}}}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, *x.webhook.URL, bytes.NewReader(body))
	require.NoError(t, err)
	request.Header.Set("Content-Type", "application/json")
	response, err := client.Do(request)
	require.NoError(t, err)
	defer response.Body.Close()
	answer := &admissionv1.AdmissionReview{}
	require.NoError(t, json.NewDecoder(response.Body).Decode(answer))
	var operations []struct {
		Path  string `json:"path"`
		Value any    `json:"value"`
	}
	require.NoError(t, json.Unmarshal(answer.Response.Patch, &operations))
	stamps := map[string]string{}
	for _, o := range operations {
		if name, ok := strings.CutPrefix(o.Path, "/metadata/annotations/"); ok {
			value, ok := o.Value.(string)
			assert.True(t, ok, o.Path)
			stamps[strings.ReplaceAll(name, "~1", "/")] = value
		}
	}
	return stamps
}
