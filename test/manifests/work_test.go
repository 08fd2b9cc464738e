package manifests_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	"github.com/airflow-requeue/airflow-requeue/internal/executor"
	"github.com/airflow-requeue/airflow-requeue/pkg/keyring"
	"github.com/airflow-requeue/airflow-requeue/pkg/preflight"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
	"github.com/airflow-requeue/airflow-requeue/pkg/watcher"
)

// replace has the watcher replace a drained pod, whose task then runs.
func (s *site) replace(ctx context.Context) error {
	pod, err := s.submit(ctx, "drained")
	if err != nil {
		return err
	}
	if pod, err = s.Kubelet.Bind(ctx, pod, "node-a"); err != nil {
		return err
	}
	if pod, err = s.Kubelet.Create(ctx, pod); err != nil {
		return err
	}
	if err := s.Kubelet.Evict(ctx, pod); err != nil {
		return err
	}
	if err := s.Kubelet.Terminate(ctx, pod, 137); err != nil {
		return err
	}
	var replacement *corev1.Pod
	err = until(ctx, "the replacement to be free to run", func() (bool, error) {
		list, err := s.tracked(ctx)
		for i := range list {
			if list[i].Name == pod.Name+"-r1" && !requeue.Gated(&list[i]) {
				replacement = &list[i]
			}
		}
		return replacement != nil, err
	})
	if err != nil {
		return err
	}
	if err := until(ctx, "Events of it", func() (bool, error) {
		list, err := s.Client.EventsV1().Events(s.Namespace).List(ctx, metav1.ListOptions{})
		return err == nil && len(list.Items) >= 2, err
	}); err != nil {
		return err
	}
	if err := s.deleteKept(ctx); err != nil {
		return err
	}
	return s.start(ctx, replacement)
}

// deleteKept has the watcher delete a replaced pod whose time is over: one that its kubelet has not removed, since it had
// ended by itself.
func (s *site) deleteKept(ctx context.Context) error {
	pod, err := s.submit(ctx, "rejected")
	if err != nil {
		return err
	}
	if pod, err = s.Kubelet.Bind(ctx, pod, "node-a"); err != nil {
		return err
	}
	if pod, err = s.Kubelet.Reject(ctx, pod, "OutOfcpu", "Node didn't have enough resource: cpu"); err != nil {
		return err
	}
	return until(ctx, "the replaced pod to be deleted", func() (bool, error) { return s.gone(ctx, pod.Name) })
}

// start lets a pod's task run, and waits for the watcher to let go of it.
func (s *site) start(ctx context.Context, pod *corev1.Pod) error {
	pod, err := s.Kubelet.Bind(ctx, pod, "node-b")
	if err != nil {
		return err
	}
	if pod, err = s.Kubelet.Start(ctx, pod); err != nil {
		return err
	}
	key, _, err := executor.Identify(pod)
	if err != nil {
		return err
	}
	row := requeue.TaskInstance{Key: key, State: requeue.StateRunning, TryNumber: 1, Hostname: pod.Name, QueuedByJobID: 1}
	if err := s.DB.Update(ctx, row); err != nil {
		return err
	}
	return until(ctx, "the hold to be lifted", func() (bool, error) {
		live, err := s.Client.CoreV1().Pods(s.Namespace).Get(ctx, pod.Name, metav1.GetOptions{})
		return err == nil && !requeue.Tracked(live), err
	})
}

// report has the watcher report a pod that was deleted before it had a node, for a task that is gone.
func (s *site) report(ctx context.Context) error {
	pod, err := s.submit(ctx, "cleared")
	if err != nil {
		return err
	}
	key, _, err := executor.Identify(pod)
	if err != nil {
		return err
	}
	if err := s.DB.Delete(ctx, key); err != nil {
		return err
	}
	if err := s.Client.CoreV1().Pods(s.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{}); err != nil {
		return err
	}
	return until(ctx, "the pod to be reported as failed", func() (bool, error) {
		live, err := s.Client.CoreV1().Pods(s.Namespace).Get(ctx, pod.Name, metav1.GetOptions{})
		return err == nil && !requeue.Held(live) && live.Status.Phase == corev1.PodFailed, err
	})
}

// release has ReleaseAll meet what a watcher may leave behind: a held pod, a replacement that was never committed, one
// that was, and what lingers for the executor to see. Somebody else changes the held pod between its read and its write.
func (s *site) release(ctx context.Context) error {
	return s.releaseBy(ctx, func(opts watcher.ReleaseOptions) (watcher.Released, error) {
		return watcher.ReleaseAll(ctx, s.account, opts)
	})
}

func (s *site) releaseBy(ctx context.Context, release func(watcher.ReleaseOptions) (watcher.Released, error)) error {
	held, err := s.submit(ctx, "held")
	if err != nil {
		return err
	}
	if err := s.replaceByHand(ctx, "uncommitted", false); err != nil {
		return err
	}
	if err := s.replaceByHand(ctx, "committed", true); err != nil {
		return err
	}
	var once sync.Once
	meddle := func(r *http.Request) {
		if r.Method == http.MethodPatch && path.Base(r.URL.Path) == held.Name {
			once.Do(func() { _, err = s.patch(ctx, held.Name, map[string]any{}, map[string]any{"changed": "meanwhile"}) })
		}
	}
	s.meddle.Store(&meddle)
	done, releaseErr := release(watcher.ReleaseOptions{Installation: s.Namespace, Namespaces: []string{s.Namespace}, Clock: clock.RealClock{}, Log: s.log})
	if err := errors.Join(err, releaseErr); err != nil {
		return err
	}
	if done.Released < 2 || done.Reported != 1 || done.Deleted != 1 || done.Stripped != 1 {
		return fmt.Errorf("releasing all pods: %+v", done)
	}
	left, err := s.tracked(ctx)
	if err == nil && len(left) > 0 {
		err = fmt.Errorf("releasing all pods: %d are left", len(left))
	}
	return err
}

// fill has a keeper make the first key of an empty Secret.
func (s *site) fill(ctx context.Context) error {
	_, err := s.Client.CoreV1().Secrets(s.Namespace).Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "airflow-requeue-signing-keys"}}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	keeper, err := keyring.NewKeeper(keyring.Options{
		Site: keyring.Site{Client: s.account, Installation: s.Namespace, Namespace: s.Namespace, Secret: "airflow-requeue-signing-keys"},
		Own:  func() requeue.Keys { return requeue.Keys{} }, Clock: clock.RealClock{}, Log: s.log,
		Signed: func(ctx context.Context, want func(string) bool) (bool, error) {
			return watcher.Signed(ctx, s.account, s.Namespace, []string{s.Namespace}, want)
		}})
	if err != nil {
		return err
	}
	return keeper.Fill(ctx)
}

// check has the preflight look at all there is. There are no keys and no webhook here: only to be refused is an error.
func (s *site) check(ctx context.Context) error {
	preflight.Run(ctx, s.account, preflight.Options{Installation: s.Namespace, Namespaces: []string{s.Namespace}, Clock: clock.RealClock{},
		Lease:  watcher.LeaseOptions{Namespace: s.Namespace, Name: s.Namespace, RetryPeriod: pollInterval},
		Policy: requeue.DefaultPolicy(), Keys: func() (requeue.Keys, error) { return requeue.Keys{}, nil }})
	return context.Cause(ctx)
}

// replaceByHand detaches a pod and creates its replacement: a watcher that died on the way.
func (s *site) replaceByHand(ctx context.Context, taskID string, committed bool) error {
	old, err := s.submit(ctx, taskID)
	if err != nil {
		return err
	}
	old, err = s.patch(ctx, old.Name, map[string]any{requeue.LabelWorker: nil, requeue.LabelExecutorDone: "True"},
		map[string]any{requeue.AnnotationDetached: "1"})
	if err != nil {
		return err
	}
	next := requeue.Next{Attempt: 1, QueuedAt: time.Now(), NotBefore: time.Now()}
	raw, err := s.Sealer.Replacement(old, next, requeue.ReplacementName(old, next, false))
	if err != nil {
		return err
	}
	replacement := &corev1.Pod{}
	if err := json.Unmarshal(raw, replacement); err != nil {
		return err
	}
	replacement, err = s.Client.CoreV1().Pods(s.Namespace).Create(ctx, replacement, metav1.CreateOptions{})
	if err == nil && committed {
		_, err = s.patch(ctx, replacement.Name, map[string]any{requeue.LabelWorker: "1"}, map[string]any{requeue.AnnotationCommitted: "true"})
	}
	return err
}

func (s *site) patch(ctx context.Context, pod string, labels, annotations map[string]any) (*corev1.Pod, error) {
	raw, err := json.Marshal(map[string]any{"metadata": map[string]any{"labels": labels, "annotations": annotations}})
	if err != nil {
		return nil, err
	}
	return s.Client.CoreV1().Pods(s.Namespace).Patch(ctx, pod, types.MergePatchType, raw, metav1.PatchOptions{})
}
