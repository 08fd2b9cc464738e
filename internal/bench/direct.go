package bench

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admission/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/cert"

	"github.com/airflow-requeue/airflow-requeue/internal/executor"
	"github.com/airflow-requeue/airflow-requeue/internal/programs"
	"github.com/airflow-requeue/airflow-requeue/pkg/mutate"
)

// startEmptyWebhook runs a webhook that does nothing, registered for the namespace; and, with patches of these bytes, for a
// second one. It returns its address.
func (i *site) startEmptyWebhook(second *site, patches map[int]int) string {
	i.t.Helper()
	certificate, key, err := cert.GenerateSelfSignedCertKey("127.0.0.1", []net.IP{net.IPv4(127, 0, 0, 1)}, nil)
	require.NoError(i.t, err)
	address := programs.FreeAddress(i.t)
	i.webhook = programs.FreeAddress(i.t)
	programs.Start(i.t, i.said, i.built["emptywebhook"], "--listen="+address, "--metrics-listen="+i.webhook,
		"--tls-cert-file="+programs.File(i.t, "tls.crt", certificate), "--tls-private-key-file="+programs.File(i.t, "tls.key", key),
		fmt.Sprintf("--small-patch=%d", patches[small]), fmt.Sprintf("--large-patch=%d", patches[large]))
	i.until("the empty webhook serves", func() bool {
		connection, err := (&net.Dialer{}).DialContext(i.t.Context(), "tcp", address)
		if err == nil {
			_ = connection.Close()
		}
		return err == nil
	})
	for path, of := range map[string]*site{mutate.Path: i, "/patch": second} {
		configuration := programs.Configuration("https://"+address+path, certificate, of.Namespace)
		timeout := int32(30)
		configuration.Webhooks[0].TimeoutSeconds = &timeout
		programs.Register(of.t, i.client, configuration)
	}
	return address
}

// patches are the bytes that our webhook adds to pods of both sizes.
func (i *site) patches() map[int]int {
	i.t.Helper()
	client := insecure()
	defer client.CloseIdleConnections()
	bytes := map[int]int{}
	for _, size := range []int{small, large} {
		task := tasks(1)[0]
		task.Namespace = i.Namespace
		_, answer := ask(i, client, "https://"+i.reviews+mutate.Path, i.review(executor.Pod(sized(task, size))))
		bytes[size] = len(answer.Patch)
	}
	return bytes
}

func insecure() *http.Client {
	return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}} //nolint:gosec // over loopback
}

// direct asks both webhooks without the API server, one request after the other: what is left is the handler, by TLS.
func (s *stage) direct(of *site, beside string, size int) {
	n, warm := s.few(1000, 4), s.few(100, 1)
	if size == large {
		n = s.few(400, 4)
	}
	client := insecure()
	defer client.CloseIdleConnections()
	for k, task := range tasks(n + warm) {
		task.Namespace = of.Namespace
		review := of.review(of.defaulted(executor.Pod(sized(task, size))))
		for who, address := range map[string]string{ours: of.reviews, empty: beside} { // in either order
			took, answer := ask(of, client, "https://"+address+mutate.Path, review)
			series := s.report.series("admission.handler", "s", "who", who, "bytes", size)
			require.Equal(of.t, who == ours, len(answer.Patch) > 0, "a patch of %s: %s", who, answer.Patch)
			if k < warm {
				series.Discarded++
				continue
			}
			series.add(took)
		}
	}
	found := s.report.find("admission.handler", "who", ours, "bytes", size)
	s.say("handler, %s: p50 %.3f ms, p99 %.3f ms", kilobytes(size), found.P50*1e3, found.P99*1e3)
}

// defaulted is a pod as the API server has it when it asks webhooks: with defaults and managed fields.
func (i *site) defaulted(pod *corev1.Pod) *corev1.Pod {
	i.t.Helper()
	pod, err := i.client.CoreV1().Pods(i.Namespace).Create(i.t.Context(), pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	require.NoError(i.t, err)
	return pod
}

// review is what the API server would ask about a pod that Airflow creates.
func (i *site) review(pod *corev1.Pod) []byte {
	i.t.Helper()
	pod.APIVersion, pod.Kind = "v1", "Pod"
	raw, err := json.Marshal(pod)
	require.NoError(i.t, err)
	resource := metav1.GroupVersionResource{Version: "v1", Resource: "pods"}
	kind := metav1.GroupVersionKind{Version: "v1", Kind: "Pod"}
	body, err := json.Marshal(admissionv1.AdmissionReview{TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"},
		Request: &admissionv1.AdmissionRequest{UID: types.UID(uuid.NewString()), Kind: kind, RequestKind: &kind, Resource: resource, RequestResource: &resource,
			Name: pod.Name, Namespace: i.Namespace, Operation: admissionv1.Create, Object: runtime.RawExtension{Raw: raw},
			UserInfo: authenticationv1.UserInfo{Username: i.AirflowUser(), Groups: []string{"system:serviceaccounts", "system:authenticated"}}}})
	require.NoError(i.t, err)
	return body
}

func ask(i *site, client *http.Client, url string, review []byte) (took float64, answer *admissionv1.AdmissionResponse) {
	i.t.Helper()
	request, err := http.NewRequestWithContext(i.t.Context(), http.MethodPost, url, bytes.NewReader(review))
	require.NoError(i.t, err)
	request.Header.Set("Content-Type", "application/json")
	asked := time.Now()
	response, err := client.Do(request)
	require.NoError(i.t, err)
	body, err := io.ReadAll(response.Body)
	took = time.Since(asked).Seconds()
	require.NoError(i.t, err)
	require.NoError(i.t, response.Body.Close())
	var answered admissionv1.AdmissionReview
	require.NoError(i.t, json.Unmarshal(body, &answered), "%s", body)
	require.NotNil(i.t, answered.Response)
	require.True(i.t, answered.Response.Allowed)
	return took, answered.Response
}
