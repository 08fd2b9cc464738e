package mutate

import (
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// Webhook answers admission reviews.
type Webhook struct {
	Mark    func(*unstructured.Unstructured, Request) Result
	Ready   func(namespace string) bool // a watcher leads for the namespace and can decide
	Metrics *Metrics
	Log     *slog.Logger

	told sync.Map // releases of Airflow whose pods are not held, as a set: each is said once
}

// Review never fails and never denies: the API server rejects a pod for either, whatever its failure policy.
func (w *Webhook) Review(review *ReviewRequest) *admissionv1.AdmissionResponse {
	start := time.Now()
	result, patch := w.mark(review)
	if !review.DryRun {
		w.Metrics.admitted(result.Outcome, time.Since(start))
	}
	w.log(review, result)
	kind := admissionv1.PatchTypeJSONPatch
	return &admissionv1.AdmissionResponse{UID: review.UID, Allowed: true, PatchType: &kind, Patch: patch, Warnings: result.Warnings}
}

// log says nothing of the usual, unless asked to, and of the pod no more than its name.
func (w *Webhook) log(review *ReviewRequest, result Result) {
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

func (w *Webhook) mark(review *ReviewRequest) (result Result, changes []byte) {
	defer func() {
		if p := recover(); p != nil {
			result, changes = Result{Outcome: Internal, Err: panicked(p)}, noPatch()
		}
	}()
	if review.Operation != admissionv1.Create {
		return Result{Outcome: NotCreate}, noPatch()
	}
	if err := review.Object.err; err != nil {
		return Result{Outcome: Internal, Err: fmt.Errorf("decoding the pod: %w", err)}, noPatch()
	}
	pod := review.Object.unstructured()
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
