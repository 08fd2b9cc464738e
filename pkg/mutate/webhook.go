package mutate

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"time"

	"github.com/slok/kubewebhook/v2/pkg/model"
	kubewebhook "github.com/slok/kubewebhook/v2/pkg/webhook"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/json"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// Webhook answers admission reviews. It is what kubewebhook's mutating webhook is, but for the patch: that one's is the
// difference between the object's text and our way to write the same object, which is more than Mark changed.
type Webhook struct {
	Mark    func(*unstructured.Unstructured, Request) Result
	Ready   func(namespace string) bool // a watcher leads for the namespace and can decide
	Metrics *Metrics
	Log     *slog.Logger

	told sync.Map // releases of Airflow whose pods are not held, as a set: each is said once
}

var _ kubewebhook.Webhook = (*Webhook)(nil)

// ID names the webhook to kubewebhook.
func (*Webhook) ID() string { return "airflow-requeue" }

// Kind tells kubewebhook which answers to expect.
func (*Webhook) Kind() model.WebhookKind { return model.WebhookKindMutating }

// Review never fails and never denies: the API server rejects a pod for either, whatever its failure policy.
func (w *Webhook) Review(_ context.Context, review model.AdmissionReview) (model.AdmissionResponse, error) {
	start := time.Now()
	result, patch := w.mark(review)
	if !review.DryRun {
		w.Metrics.admitted(result.Outcome, time.Since(start))
	}
	w.log(review, result)
	return &model.MutatingAdmissionResponse{ID: review.ID, JSONPatchPatch: patch, Warnings: result.Warnings}, nil
}

// log says nothing of the usual, unless asked to, and of the pod no more than its name.
func (w *Webhook) log(review model.AdmissionReview, result Result) {
	log := w.Log.With("outcome", result.Outcome, "namespace", review.Namespace, "pod", review.Name)
	switch result.Outcome {
	case Internal:
		log.Warn("pod admitted", "error", result.Err)
	case NotTaskInstance: // rare, as the next, and somebody will want to know why the pod was not replaced
		log.Info("pod admitted", "error", result.Err)
	case UnsupportedAirflow:
		if _, told := w.told.LoadOrStore(result.Airflow, true); told {
			log.Debug("pod admitted", "airflow", result.Airflow.String())
			return
		}
		log.Warn("pods of an airflow that is not supported are not held", "airflow", result.Airflow.String(), "oldest", requeue.OldestAirflow().String())
	case Malformed, TooLarge:
		log.Info("pod admitted")
	default:
		log.Debug("pod admitted")
	}
}

func (w *Webhook) mark(review model.AdmissionReview) (result Result, changes []byte) {
	defer func() {
		if p := recover(); p != nil {
			result, changes = Result{Outcome: Internal, Err: panicked(p)}, noPatch()
		}
	}()
	if review.Operation != model.OperationCreate {
		return Result{Outcome: NotCreate}, noPatch()
	}
	pod := &unstructured.Unstructured{}
	if err := json.Unmarshal(review.NewObjectRaw, &pod.Object); err != nil {
		return Result{Outcome: Internal, Err: fmt.Errorf("decoding the pod: %w", err)}, noPatch()
	}
	before, err := snapshot(pod)
	if err != nil {
		return Result{Outcome: Internal, Err: err}, noPatch()
	}
	result = w.Mark(pod, Request{
		Namespace:   review.Namespace,
		User:        review.UserInfo.Username,
		Groups:      review.UserInfo.Groups,
		LeaderReady: w.Ready(review.Namespace),
	})
	after, err := snapshot(pod)
	if err == nil {
		changes, err = patch(before, after)
	}
	if err != nil {
		return Result{Outcome: Internal, Err: err}, noPatch()
	}
	return result, changes
}

// panicked keeps what a panic says out of the log unless it is the runtime's: it may quote the pod.
func panicked(p any) error {
	if err, ok := p.(runtime.Error); ok {
		return fmt.Errorf("panic: %w", err)
	}
	return fmt.Errorf("panic: %T", p)
}
