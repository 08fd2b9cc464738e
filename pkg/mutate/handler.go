package mutate

import (
	"bytes"
	stdjson "encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"

	kwhttp "github.com/slok/kubewebhook/v2/pkg/http"
	admissionv1 "k8s.io/api/admission/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/json"
)

// Path is where the webhook configuration is to send its requests.
const Path = "/mutate"

// maxBody bounds a request in bytes. The largest pod that can be created has 1.5 MiB, since etcd takes no more; the API server
// takes 3 MiB, which may grow to twice that as text within the review's JSON. A review of a CREATE has it once.
const maxBody = 10 << 20

// Handler serves the webhook over HTTP. What is not an admission review of a pod gets a 4xx that says what is wrong.
func Handler(w *Webhook) (http.Handler, error) {
	reviews, err := kwhttp.HandlerFor(kwhttp.HandlerConfig{Webhook: w})
	if err != nil {
		return nil, fmt.Errorf("making the webhook's handler: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle(Path, guard{reviews: reviews, metrics: w.Metrics, log: w.Log})
	return mux, nil
}

// guard lets only what kubewebhook can answer through to it.
type guard struct {
	reviews http.Handler
	metrics *Metrics
	log     *slog.Logger
}

func (g guard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, envelope, err := read(w, r)
	var refused *refusal
	switch {
	case errors.As(err, &refused):
		g.metrics.refused(refused.code)
		g.log.Info("request refused", "code", refused.code, "error", refused, "from", r.RemoteAddr)
		http.Error(w, refused.Error(), refused.code)
	case int64(len(body)) > kwhttp.MaxRequestBodyBytes:
		g.metrics.admitted(TooLarge, 0)
		allow(w, envelope)
	default:
		r.Body = io.NopCloser(bytes.NewReader(body))
		g.reviews.ServeHTTP(w, r)
	}
}

// refusal is a request that is answered with a 4xx.
type refusal struct {
	code int
	what string
}

func (r *refusal) Error() string { return r.what }

func refuse(code int, format string, args ...any) error {
	return &refusal{code: code, what: fmt.Sprintf(format, args...)}
}

// envelope is as much of an admission review as is looked at before kubewebhook reads it all.
type envelope struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Request    *struct {
		UID  types.UID `json:"uid"`
		Kind struct {
			Group string `json:"group"`
			Kind  string `json:"kind"`
		} `json:"kind"`
		Operation admissionv1.Operation `json:"operation"`
		Object    *struct {
			Kind string `json:"kind"`
		} `json:"object"`
	} `json:"request"`
}

func read(w http.ResponseWriter, r *http.Request) (body []byte, review envelope, err error) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return nil, review, refuse(http.StatusMethodNotAllowed, "method %.20q: admission reviews are posted", r.Method)
	}
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != "application/json" {
		return nil, review, refuse(http.StatusUnsupportedMediaType, "content type is not application/json")
	}
	body, err = io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var tooLong *http.MaxBytesError
	switch {
	case errors.As(err, &tooLong):
		return nil, review, refuse(http.StatusRequestEntityTooLarge, "body is larger than %d bytes", maxBody)
	case err != nil:
		return nil, review, refuse(http.StatusBadRequest, "body ended early")
	case len(body) == 0:
		return nil, review, refuse(http.StatusBadRequest, "body is empty")
	}
	if err := json.Unmarshal(body, &review); err != nil {
		return nil, review, refuse(http.StatusBadRequest, "body is not the JSON of an admission review")
	}
	return body, review, review.check()
}

func (e envelope) check() error {
	switch {
	case e.Kind != "AdmissionReview" || e.APIVersion != "admission.k8s.io/v1" && e.APIVersion != "admission.k8s.io/v1beta1":
		return refuse(http.StatusBadRequest, "body is not an AdmissionReview of admission.k8s.io/v1 or v1beta1")
	case e.Request == nil:
		return refuse(http.StatusBadRequest, "admission review has no request")
	case e.Request.Kind.Group != "" || e.Request.Kind.Kind != "Pod":
		return refuse(http.StatusBadRequest, "admission review is not of a Pod: check the rules of the webhook configuration")
	case e.Request.Operation == admissionv1.Create && (e.Request.Object == nil || e.Request.Object.Kind != "Pod"):
		return refuse(http.StatusBadRequest, "object of the admission review is not a Pod")
	}
	return nil
}

// allow answers without a patch.
func allow(w http.ResponseWriter, review envelope) {
	var answer struct {
		APIVersion string                         `json:"apiVersion"`
		Kind       string                         `json:"kind"`
		Response   *admissionv1.AdmissionResponse `json:"response"`
	}
	answer.APIVersion, answer.Kind = review.APIVersion, review.Kind
	answer.Response = &admissionv1.AdmissionResponse{UID: review.Request.UID, Allowed: true}
	w.Header().Set("Content-Type", "application/json")
	_ = stdjson.NewEncoder(w).Encode(answer) // what fails is the connection
}
