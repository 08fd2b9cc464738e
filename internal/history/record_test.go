package history

import (
	"testing"

	"github.com/stretchr/testify/assert"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// pod is one of the chain "first", attached and able to run, at a version.
func pod(name, uid, version string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(uid), ResourceVersion: version,
		Labels: map[string]string{requeue.LabelWorker: "1"}, Annotations: map[string]string{requeue.AnnotationOrigin: "first"}}}
}

func TestAListAfterAnOutageTellsOfWhatIsNewHasChangedOrIsGone(t *testing.T) {
	t.Parallel()
	r := New()
	for _, p := range []*corev1.Pod{pod("same", "a", "1"), pod("changed", "b", "2"), pod("gone", "c", "3"), pod("another", "d", "4")} {
		p.Annotations = nil
		r.See(watch.Added, p)
	}
	before := len(r.Moments())
	list := []runtime.Object{pod("same", "a", "1"), pod("changed", "b", "5"), pod("another", "e", "6"), pod("new", "f", "7")}
	for _, p := range list {
		p.(*corev1.Pod).Annotations = nil
	}
	r.list(list)
	var told []string
	for _, m := range r.Moments()[before:] {
		told = append(told, string(m.EventType)+" "+m.Pod.Name+" "+string(m.Pod.UID))
	}
	assert.Equal(t, []string{"MODIFIED changed b", "DELETED another d", "ADDED another e", "ADDED new f", "DELETED gone c"}, told)
	assert.Nil(t, r.Latest("gone"))
	assert.Equal(t, types.UID("e"), r.Latest("another").UID)
	assert.Empty(t, r.AllBroken())
}

func TestWhatAListShowsAtOnceBreaksNoPromise(t *testing.T) {
	t.Parallel()
	r := New()
	r.See(watch.Added, pod("first", "a", "1"))
	r.list([]runtime.Object{pod("first-r1", "b", "2")}) // first went meanwhile, who knows when
	assert.Empty(t, r.Broken("first"))
	r.list([]runtime.Object{pod("first-r1", "b", "2"), pod("first-r2", "c", "4")})
	assert.Equal(t, []string{"two pods of a chain carry airflow-worker: [first-r1 first-r2]", "two pods of a chain may run: [first-r1 first-r2]"}, r.Broken("first"))
}
