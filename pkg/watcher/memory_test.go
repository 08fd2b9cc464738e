package watcher

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

func podAt(uid types.UID, version string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: uid, ResourceVersion: version}}
}

func TestAPodThatIsOlderThanOurOwnLastWriteIsNotDecidedOn(t *testing.T) {
	t.Parallel()
	m := newMemory()
	require.False(t, m.behind("a", "9"), "nothing was written")
	m.wrote(podAt("a", "10"))
	require.True(t, m.behind("a", "9"), "as numbers, not as text")
	require.False(t, m.behind("a", "10"))
	require.False(t, m.behind("a", "11"))
	require.False(t, m.behind("b", "9"))
	m.forget("a")
	require.False(t, m.behind("a", "9"))
}

func TestABudgetCountsTheOtherPodsOfItsQueueingForAnHour(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	job := requeue.Job{Ref: requeue.Ref{Key: requeue.Key{DagID: "d", TaskID: "t", RunID: "r", MapIndex: -1}}, TryNumber: 1}
	this, later := queueingOf(job, now), queueingOf(job, now.Add(time.Second))
	m := newMemory()
	m.spend(this, "a", now)
	m.spend(this, "a", now) // told twice
	m.spend(this, "b", now)
	require.Equal(t, 2, m.spent(this, "c"))
	require.Equal(t, 1, m.spent(this, "a"), "its own replacement is no other's")
	require.Zero(t, m.spent(later, "c"), "a later queueing has a budget of its own")
	m.prune(now.Add(time.Hour), nil)
	require.Equal(t, 2, m.spent(this, "c"))
	m.prune(now.Add(time.Hour+time.Second), nil)
	require.Zero(t, m.spent(this, "c"))
}

func TestMemoryIsPrunedToThePodsThatAreTracked(t *testing.T) {
	t.Parallel()
	m := newMemory()
	m.wrote(podAt("tracked", "10"))
	m.wrote(podAt("gone", "10")) // its answer came after the event of its end
	m.prune(time.Now(), map[types.UID]bool{"tracked": true})
	require.Len(t, m.pods, 1)
	require.True(t, m.behind("tracked", "9"))
}
