package main

import (
	"crypto/tls"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

// serveSidecars serves somebody else's webhook, which gives each pod a container once, and returns its URL.
func serveSidecars(t *testing.T, files certificateFiles) string {
	t.Helper()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var review admissionv1.AdmissionReview
		var pod corev1.Pod
		if !assert.NoError(t, json.NewDecoder(r.Body).Decode(&review)) || !assert.NoError(t, json.Unmarshal(review.Request.Object.Raw, &pod)) {
			return
		}
		review.Response = &admissionv1.AdmissionResponse{UID: review.Request.UID, Allowed: true}
		if len(pod.Spec.Containers) == 1 {
			review.Response.PatchType = ptr.To(admissionv1.PatchTypeJSONPatch)
			review.Response.Patch = []byte(`[{"op":"add","path":"/spec/containers/-","value":{"name":"sidecar","image":"sidecar"}}]`)
		}
		review.Request = nil
		assert.NoError(t, json.NewEncoder(w).Encode(review))
	}))
	certificate, err := tls.LoadX509KeyPair(files.cert, files.key)
	require.NoError(t, err)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
	server.StartTLS()
	t.Cleanup(server.Close)
	return server.URL
}
