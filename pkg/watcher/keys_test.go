package watcher_test

import (
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
	"github.com/airflow-requeue/airflow-requeue/pkg/watcher"
)

// mounted are keys that change under a running watcher, as those of a mounted Secret do.
type mounted struct {
	mu   sync.Mutex
	keys requeue.Keys
}

func (m *mounted) get() requeue.Keys {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.keys
}

func (m *mounted) set(current string, ids ...string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.keys = requeue.Keys{Current: current, Secrets: map[string][]byte{}}
	for i, id := range ids {
		m.keys.Secrets[id] = append(make([]byte, requeue.MinKeyBytes), byte(i), id[len(id)-1])
	}
}

// withKeys gives the watchers that are started from here on keys that may change.
func (w *world) withKeys(current string, ids ...string) *mounted {
	w.t.Helper()
	m := &mounted{}
	m.set(current, ids...)
	var err error
	w.sealer, err = requeue.NewSealer(m.get)
	require.NoError(w.t, err)
	return m
}

func TestAPodSignedWithAKeyThatIsMountedLaterIsReplaced(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	keys := w.withKeys("k1", "k1")
	task := w.queued("rotation")
	pod, err := w.kubelet.Reject(t.Context(), w.submit(task), "NodeAffinity", "no")
	require.NoError(t, err)
	keys.set("k0", "k0")
	p := w.run()
	w.eventually("it was looked at twice", func() bool {
		w.clock.forward(time.Second)
		return p.wire.count("GET "+pod.Name) > 1
	})
	keys.set("k1", "k1")
	w.passing(time.Second, "the replacement", func() bool { return isFree(w.history.Latest(pod.Name + "-r1")) })
	w.untilUntracked(pod.Name)
	w.nothingSeen()
}

func TestAPodSignedWithAKeyThatIsNeverMountedIsReportedAfterTwoMinutes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	keys := w.withKeys("k1", "k1")
	task := w.queued("forged")
	pod, err := w.kubelet.Reject(t.Context(), w.submit(task), "NodeAffinity", "no")
	require.NoError(t, err)
	keys.set("k0", "k0")
	began := w.clock.Now()
	w.run()
	w.passing(15*time.Second, "the report", func() bool { return len(w.executor.saw()) > 0 })
	require.GreaterOrEqual(t, w.clock.Since(began), 2*time.Minute)
	w.untilUntracked(pod.Name)
	w.seenOnly("failed " + pod.Name)
	w.untilEvent(pod, "Tampered", "the stamps are signed with a key that is not mounted")
	require.Empty(t, w.replacementsOf(pod))
}

// A leader with the next key dies once its create is done; the one that follows does not know that key yet, and finds a
// pod and a replacement of which it can verify only one.
func TestAReplacementSignedWithTheNextKeyIsNotTakenForALateCreate(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.withKeys("k1", "k1")
	task := w.queued("rotation")
	pod, err := w.kubelet.Reject(t.Context(), w.submit(task), "NodeAffinity", "no")
	require.NoError(t, err)
	w.withKeys("k2", "k1", "k2")
	dying := w.run(func(p *process) {
		p.wire.write = func(n int, _ string) fate {
			if n == 2 {
				return answerLost
			}
			return arrives
		}
	})
	w.eventually("the create was its last write", dying.wire.isDead)
	dying.stop()
	replacement := w.until(pod.Name+"-r1", "created", func(p *corev1.Pod) bool { return p != nil })

	late := w.withKeys("k1", "k1")
	w.run()
	w.untilUntracked(pod.Name)
	late.set("k1", "k1", "k2")
	w.passing(time.Second, "the gate comes off", func() bool { return isFree(w.history.Latest(replacement.Name)) })
	require.Equal(t, []string{string(replacement.UID)}, w.replacementsOf(pod))
	w.nothingSeen()
}

func TestAPodIsSignedAsLongAsItsSealIsLookedAt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.withKeys("k1", "k1")
	p := w.start()
	signed := func(key string) []bool {
		want := func(k string) bool { return k == key }
		listed, err := watcher.Signed(t.Context(), w.client, installation, []string{w.namespace}, want)
		require.NoError(t, err)
		return []bool{p.Signed(want), listed}
	}
	require.Equal(t, []bool{false, false}, signed("k1"))
	pod := w.submit(w.queued("held"))
	w.eventually("it is known to be held", func() bool { return slices.Equal(signed("k1"), []bool{true, true}) })
	require.Equal(t, []bool{false, false}, signed("k2"))

	delete(pod.Labels, requeue.LabelTracked)
	pod, err := w.client.CoreV1().Pods(w.namespace).Update(t.Context(), pod, metav1.UpdateOptions{})
	require.NoError(t, err)
	w.eventually("nobody looks at it any more", func() bool { return !slices.Contains(signed("k1"), true) })
	pod.Labels[requeue.LabelReplaced] = installation
	_, err = w.client.CoreV1().Pods(w.namespace).Update(t.Context(), pod, metav1.UpdateOptions{})
	require.NoError(t, err)
	require.Equal(t, []bool{false, true}, signed("k1"), "a replaced pod is deleted only where its seal is good")
}
