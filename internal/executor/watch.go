package executor

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// Watch is KubernetesJobWatcher: one scheduler's watch on its worker pods. Its fields are set once, before Run.
type Watch struct {
	Client kubernetes.Interface
	// Namespace is where pods are watched; empty means all (multi_namespace_mode).
	Namespace string
	// JobID is the scheduler job whose pods are watched.
	JobID int64
	Rules Rules
	// Report is called, from Run's goroutine, for all that the executor would put in its queue.
	Report func(Seen)
	// Started is called when a watch has been accepted by the API server, each time; nil is fine.
	Started func()
	// Idle is the client's read timeout; zero means the executor's 30 s.
	Idle time.Duration
	// Restart is the pause after an idle timeout or a failure; zero means the executor's 1 s.
	Restart time.Duration
}

// errIdle is urllib3's ReadTimeoutError: nothing was read from the watch for as long as the client waits.
var errIdle = errors.New("no event within the read timeout")

// Run watches until the context ends, and then returns nil. A watch that ends is begun again as the executor does it:
// one that the server ended goes on from the last version seen; one that was idle begins again at the version that it
// had begun at, which mostly is "0", so that every pod in the selection is seen anew; after an error (a version that
// is too old, 410, among them) it begins at "0". A connection that breaks is an error there; client-go does not tell it
// from a watch that the server ended. Run fails on a pod that names no task, as the executor's process does.
func (w *Watch) Run(ctx context.Context) error {
	version := "0"
	for ctx.Err() == nil {
		last, err := w.follow(ctx, version)
		var unnamed *unnamedPodError
		switch {
		case err == nil:
			version = last
			continue
		case errors.As(err, &unnamed):
			return fmt.Errorf("watching the pods of scheduler job %d: %w", w.JobID, err)
		case !errors.Is(err, errIdle):
			version = "0"
		}
		select {
		case <-ctx.Done():
		case <-time.After(orDefault(w.Restart, time.Second)):
		}
	}
	return nil
}

// follow runs one watch to its end and returns the last version that it saw: empty when it saw none, in which case the
// next watch begins with what there is, as the executor's does.
func (w *Watch) follow(ctx context.Context, version string) (string, error) {
	watched := int64(time.Hour / time.Second)
	events, err := w.Client.CoreV1().Pods(w.Namespace).Watch(ctx, metav1.ListOptions{
		LabelSelector:   fmt.Sprintf("%s=%s,%s!=True", requeue.LabelWorker, worker(w.JobID), requeue.LabelExecutorDone),
		ResourceVersion: version,
		TimeoutSeconds:  &watched,
	})
	if err != nil {
		return "", fmt.Errorf("beginning a watch at version %q: %w", version, err)
	}
	defer events.Stop()
	if w.Started != nil {
		w.Started()
	}

	idle := time.NewTimer(orDefault(w.Idle, 30*time.Second))
	defer idle.Stop()
	last := ""
	for {
		select {
		case <-ctx.Done():
			return last, nil
		case <-idle.C:
			return last, errIdle
		case event, open := <-events.ResultChan():
			if !open {
				return last, nil
			}
			idle.Reset(orDefault(w.Idle, 30*time.Second))
			if last, err = w.process(event, last); err != nil {
				return last, err
			}
		}
	}
}

func (w *Watch) process(event watch.Event, last string) (string, error) {
	if event.Type == watch.Error {
		return last, fmt.Errorf("following a watch: %w", apierrors.FromObject(event.Object))
	}
	pod, ok := event.Object.(*corev1.Pod)
	if !ok {
		return last, fmt.Errorf("following a watch: it sent a %T", event.Object)
	}
	if _, _, err := Identify(pod); err != nil {
		return last, &unnamedPodError{err}
	}
	if seen, ok := w.Rules.ProcessStatus(event); ok {
		w.Report(seen)
	}
	return pod.ResourceVersion, nil
}

// unnamedPodError is a pod in the watch that names no task: the executor's process ends on it, and on it again when it
// is begun anew.
type unnamedPodError struct{ error }

func (e *unnamedPodError) Unwrap() error { return e.error }

func orDefault(d, standard time.Duration) time.Duration {
	if d == 0 {
		return standard
	}
	return d
}
