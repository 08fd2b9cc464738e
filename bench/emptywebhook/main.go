// Command emptywebhook is the least that a webhook in Go can be: by TLS it takes admission reviews and allows all of them,
// unread but for their UID. What is slower than it is slower by its own work, or by what the API server makes of its patch:
// at /patch it answers as quickly with a patch, which adds an annotation.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

func main() {
	listen := flag.String("listen", "", "address for admission reviews, by HTTPS")
	metrics := flag.String("metrics-listen", "", "address for /metrics, by plain HTTP")
	certificate := flag.String("tls-cert-file", "", "serving certificate")
	key := flag.String("tls-private-key-file", "", "its private key")
	small := flag.Int("small-patch", 0, "bytes that /patch adds to a pod")
	large := flag.Int("large-patch", 0, "bytes that /patch adds to a pod of 100 KB or more")
	flag.Parse()
	mux := http.NewServeMux()
	mux.Handle("/", answer(func(int) []byte { return nil }))
	patches := map[bool][]byte{false: patch(*small), true: patch(*large)}
	mux.Handle("/patch", answer(func(size int) []byte { return patches[size > 100<<10] }))
	failed := make(chan error, 2)
	go func() { failed <- server(*metrics, promhttp.Handler()).ListenAndServe() }()
	go func() { failed <- server(*listen, mux).ListenAndServeTLS(*certificate, *key) }()
	fmt.Fprintln(os.Stderr, "emptywebhook:", <-failed)
	os.Exit(1)
}

// server speaks HTTP/1.1, and keeps connections that wait, as airflow-requeue's webhook does.
func server(address string, handler http.Handler) *http.Server {
	protocols := &http.Protocols{}
	protocols.SetHTTP1(true)
	return &http.Server{Addr: address, Handler: handler, Protocols: protocols, ReadHeaderTimeout: 2 * time.Minute}
}

// patch adds an annotation that can't be compressed any further.
func patch(size int) []byte {
	letters := make([]byte, size)
	for i := range letters {
		letters[i] = 'a' + byte(rand.IntN(26)) //nolint:gosec // nobody guesses it
	}
	return fmt.Appendf(nil, `[{"op":"add","path":"/metadata/annotations/bench","value":%q}]`, letters)
}

// answer allows what is reviewed, with the patch for a review of so many bytes.
func answer(patch func(size int) []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var review struct {
			metav1.TypeMeta `json:",inline"`
			Request         struct {
				UID types.UID `json:"uid"`
			} `json:"request"`
		}
		body, err := io.ReadAll(r.Body)
		if err == nil {
			err = json.Unmarshal(body, &review)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		response := &admissionv1.AdmissionResponse{UID: review.Request.UID, Allowed: true}
		if response.Patch = patch(len(body)); response.Patch != nil {
			kind := admissionv1.PatchTypeJSONPatch
			response.PatchType = &kind
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(admissionv1.AdmissionReview{TypeMeta: review.TypeMeta, Response: response}) // what fails is the connection
	}
}
