package watcher

import (
	"context"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

const (
	// cleanUpEvery is how often replaced pods are looked for.
	cleanUpEvery = time.Minute
	// keptPerTask is how many replaced pods of a task instance are kept, whatever their age, so that unlimited retries
	// cannot pile pods up.
	keptPerTask = 3
	// probeEvery is how often an unreadable metadata database is tried when no pod asks for it.
	probeEvery = 2 * time.Second
)

// cleanUp deletes replaced pods when their time is over, and forgets what nothing asks for any more.
func (w *Watcher) cleanUp(ctx context.Context) {
	ticker := w.clock.NewTicker(cleanUpEvery)
	defer ticker.Stop()
	for {
		tracked := map[types.UID]bool{}
		for uid := range w.tracked() {
			tracked[uid] = true
		}
		w.memory.prune(w.clock.Now(), tracked)
		for _, ns := range w.opts.Namespaces {
			if err := w.deleteReplaced(ctx, ns); err != nil && ctx.Err() == nil {
				w.log.Warn("deleting replaced pods failed, trying again in a minute", "namespace", ns, "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C():
		}
	}
}

func (w *Watcher) deleteReplaced(ctx context.Context, namespace string) error {
	// From the API server's cache: a late answer deletes a pod a minute later.
	list, err := w.client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{
		LabelSelector: requeue.LabelReplaced + "=" + w.opts.Installation, ResourceVersion: "0"})
	if err != nil {
		return err
	}
	// The label alone is not believed: whoever may change pods but not delete them could have any pod deleted by us.
	ours := slices.DeleteFunc(list.Items, func(p corev1.Pod) bool {
		return !requeue.Ended(&p) || !requeue.Detached(&p) || w.sealer.Verify(&p).State != requeue.SealValid
	})
	for _, pod := range overdue(ours, w.opts.ReplacedPodTTL, w.clock.Now()) {
		if _, err := w.delete(ctx, pod); ignoreGone(err) != nil {
			return err
		}
	}
	return nil
}

// overdue returns the replaced pods that are too old, or too many of one task instance.
func overdue(pods []corev1.Pod, ttl time.Duration, now time.Time) []*corev1.Pod {
	byTask := map[string][]*corev1.Pod{}
	for i := range pods {
		p := &pods[i]
		var key []string
		for _, name := range requeue.IdentityLabels() { // annotations of the same names hold the raw values
			key = append(key, p.Annotations[name])
		}
		k := strings.Join(key, "\x00")
		byTask[k] = append(byTask[k], p)
	}
	var over []*corev1.Pod
	for _, chain := range byTask {
		slices.SortFunc(chain, func(a, b *corev1.Pod) int { return requeue.ReplacedAt(b).Compare(requeue.ReplacedAt(a)) })
		for i, p := range chain {
			if p.DeletionTimestamp == nil && (i >= keptPerTask || now.Sub(requeue.ReplacedAt(p)) >= ttl) {
				over = append(over, p)
			}
		}
	}
	return over
}

// watchDatabase tries the metadata database while it is unreadable: the leader's Lease must say so when it is back, and
// nothing new is held until it does.
func (w *Watcher) watchDatabase(ctx context.Context) {
	ticker := w.clock.NewTicker(probeEvery)
	defer ticker.Stop()
	for {
		if !w.database.readable() {
			began := w.clock.Now()
			_, _, err := w.rows.Get(ctx, requeue.Ref{Key: requeue.Key{MapIndex: -1}}) // a row that no one has
			if ctx.Err() == nil {
				w.database.observe(err, began, w.clock.Now())
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C():
		}
	}
}

// Ready reports whether the watcher can decide: what the leader's Lease says.
func (w *Watcher) Ready() bool { return w.leading.Load() && w.database.readable() }
