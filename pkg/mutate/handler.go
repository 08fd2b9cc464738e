package mutate

import (
	stdjson "encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"strconv"

	"github.com/go-json-experiment/json"
	admissionv1 "k8s.io/api/admission/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// Path is where the webhook configuration is to send its requests.
const Path = "/mutate"

// maxBody bounds a request in bytes. The largest pod that can be created has 1.5 MiB, since etcd takes no more; the API server
// takes 3 MiB, which may grow to twice that as text within the review's JSON. A review of a CREATE has it once.
const maxBody = 10 << 20

// Handler serves the webhook over HTTP. What is not an admission review of a pod gets a 4xx that says what is wrong.
func Handler(w *Webhook) http.Handler {
	mux := http.NewServeMux()
	mux.Handle(Path, handler{webhook: w, metrics: w.Metrics, log: w.Log})
	return mux
}

type handler struct {
	webhook *Webhook
	metrics *Metrics
	log     *slog.Logger
}

func (h handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	review, err := read(w, r)
	var refused *refusal
	if errors.As(err, &refused) {
		h.metrics.refused(refused.code)
		h.log.Info("request refused", "code", refused.code, "error", refused, "from", r.RemoteAddr)
		http.Error(w, refused.Error(), refused.code)
		return
	}
	review.answer(w, h.webhook.Review(review.Request))
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

// review is as much of an AdmissionReview, of admission.k8s.io/v1 or v1beta1, as is looked at. It is read once: to read a pod's
// JSON takes longer than all else that is done to it.
type review struct {
	APIVersion string         `json:"apiVersion"`
	Kind       string         `json:"kind"`
	Request    *ReviewRequest `json:"request"`
}

// ReviewRequest is an AdmissionRequest.
type ReviewRequest struct {
	UID  types.UID `json:"uid"`
	Kind struct {
		Group string `json:"group"`
		Kind  string `json:"kind"`
	} `json:"kind"`
	Name      string                `json:"name"`
	Namespace string                `json:"namespace"`
	Operation admissionv1.Operation `json:"operation"`
	DryRun    bool                  `json:"dryRun"`
	UserInfo  struct {
		Username string   `json:"username"`
		Groups   []string `json:"groups"`
	} `json:"userInfo"`
	Object *Pod `json:"object"`
}

func read(w http.ResponseWriter, r *http.Request) (of review, err error) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return of, refuse(http.StatusMethodNotAllowed, "method %.20q: admission reviews are posted", r.Method)
	}
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != "application/json" {
		return of, refuse(http.StatusUnsupportedMediaType, "content type is not application/json")
	}
	body, err := readAll(http.MaxBytesReader(w, r.Body, maxBody), r.ContentLength)
	var tooLong *http.MaxBytesError
	switch {
	case errors.As(err, &tooLong):
		return of, refuse(http.StatusRequestEntityTooLarge, "body is larger than %d bytes", maxBody)
	case err != nil:
		return of, refuse(http.StatusBadRequest, "body ended early")
	case len(body) == 0:
		return of, refuse(http.StatusBadRequest, "body is empty")
	}
	if err := json.Unmarshal(body, &of, requeue.AsAPIServer()); err != nil {
		return of, refuse(http.StatusBadRequest, "body is not the JSON of an admission review")
	}
	return of, of.check()
}

// readAll is io.ReadAll where the length is known, or not.
func readAll(r io.Reader, length int64) ([]byte, error) {
	if length <= 0 || length > maxBody {
		return io.ReadAll(r)
	}
	body := make([]byte, length)
	_, err := io.ReadFull(r, body)
	return body, err
}

func (r review) check() error {
	switch {
	case r.Kind != "AdmissionReview" || r.APIVersion != "admission.k8s.io/v1" && r.APIVersion != "admission.k8s.io/v1beta1":
		return refuse(http.StatusBadRequest, "body is not an AdmissionReview of admission.k8s.io/v1 or v1beta1")
	case r.Request == nil:
		return refuse(http.StatusBadRequest, "admission review has no request")
	case r.Request.Kind.Group != "" || r.Request.Kind.Kind != "Pod":
		return refuse(http.StatusBadRequest, "admission review is not of a Pod: check the rules of the webhook configuration")
	case r.Request.Operation == admissionv1.Create && (r.Request.Object == nil || r.Request.Object.kind != "Pod"):
		return refuse(http.StatusBadRequest, "object of the admission review is not a Pod")
	}
	return nil
}

// answer writes the review's answer, in its own version.
func (r review) answer(w http.ResponseWriter, response *admissionv1.AdmissionResponse) {
	var answer struct {
		APIVersion string                         `json:"apiVersion"`
		Kind       string                         `json:"kind"`
		Response   *admissionv1.AdmissionResponse `json:"response"`
	}
	answer.APIVersion, answer.Kind, answer.Response = r.APIVersion, r.Kind, response
	raw, err := stdjson.Marshal(answer)
	if err != nil {
		http.Error(w, "encoding the answer: "+err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(raw)))
	_, _ = w.Write(raw) // what fails is the connection
}
