// Package history keeps what a watch has shown of pods, for tests: what every pod was like, at any time.
package history

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// Record is what a watch on all pods of a namespace has shown, in the API server's own order, chain by chain: a pod that
// Airflow made and its replacements, named as the first of them. Whatever a test is about, the promises must hold all the
// time: it remembers where they did not.
type Record struct {
	// Bell rings with each event.
	Bell Bell

	mu           sync.Mutex
	lateAdoption bool
	moments      []Moment
	there        map[string]*corev1.Pod
	byName       map[string][]Moment
	last         map[types.UID]*corev1.Pod
	byTask       map[string]map[types.UID]bool // task ID: a hundred cases look at each event
	chains       map[string]*chain
}

type chain struct {
	moments []Moment
	there   map[string]*corev1.Pod
	broken  []string
	changed Bell
}

// New is a Record that has seen nothing, and sees what See tells it.
func New() *Record {
	return &Record{there: map[string]*corev1.Pod{}, byName: map[string][]Moment{}, last: map[types.UID]*corev1.Pod{},
		byTask: map[string]map[types.UID]bool{}, chains: map[string]*chain{}}
}

// Watch begins a record of a namespace's pods, which goes on until the test ends.
func Watch(t testing.TB, client kubernetes.Interface, namespace string) *Record {
	t.Helper()
	r := New()
	follow(t, client.CoreV1().RESTClient(), "pods", namespace, r.list, r.See)
	return r
}

// LateAdoption says that the test has Airflow put airflow-worker on a pod by a patch that it decided on long before: the
// label may then be on two pods, of which still only one is attached.
func (r *Record) LateAdoption() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lateAdoption = true
}

// of is called with the lock held.
func (r *Record) of(name string) *chain {
	c, ok := r.chains[name]
	if !ok {
		c = &chain{there: map[string]*corev1.Pod{}}
		r.chains[name] = c
	}
	return c
}

// See takes an event of a pod in.
func (r *Record) See(event watch.EventType, object runtime.Object) {
	if pod, ok := object.(*corev1.Pod); ok {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.see(event, pod).check(r.lateAdoption)
		r.Bell.Ring()
	}
}

// list takes a list in: what it shows that is new, has changed or is gone. Which came first it does not show: the promises
// are held against all of it at once.
func (r *Record) list(pods []runtime.Object) {
	r.mu.Lock()
	defer r.mu.Unlock()
	changed := map[*chain]bool{}
	gone := maps.Clone(r.there)
	for _, object := range pods {
		pod, ok := object.(*corev1.Pod)
		if !ok {
			continue
		}
		before := r.there[pod.Name]
		delete(gone, pod.Name)
		if before != nil && before.UID != pod.UID {
			changed[r.see(watch.Deleted, before)] = true
			before = nil
		}
		if before == nil {
			changed[r.see(watch.Added, pod)] = true
		} else if before.ResourceVersion != pod.ResourceVersion {
			changed[r.see(watch.Modified, pod)] = true
		}
	}
	for _, pod := range byName(gone) {
		changed[r.see(watch.Deleted, pod)] = true
	}
	for c := range changed {
		c.check(r.lateAdoption)
	}
	r.Bell.Ring()
}

// see is called with the lock held, and returns the chain, which is to be checked.
func (r *Record) see(event watch.EventType, pod *corev1.Pod) *chain {
	m := Moment{EventType: event, Pod: pod, At: time.Now()}
	name := pod.Annotations[requeue.AnnotationOrigin]
	if name == "" {
		name = pod.Name
	}
	c := r.of(name)
	r.moments, c.moments = append(r.moments, m), append(c.moments, m)
	r.byName[pod.Name] = append(r.byName[pod.Name], m)
	r.last[pod.UID] = pod
	task := pod.Annotations["task_id"]
	if r.byTask[task] == nil {
		r.byTask[task] = map[types.UID]bool{}
	}
	r.byTask[task][pod.UID] = true
	if event == watch.Deleted {
		delete(r.there, pod.Name)
		delete(c.there, pod.Name)
	} else {
		r.there[pod.Name], c.there[pod.Name] = pod, pod
	}
	c.changed.Ring()
	return c
}

// check holds the promises against the pods of the chain as they are now.
func (c *chain) check(lateAdoption bool) {
	var attached, running []string
	replacements := map[string][]string{}
	for _, name := range slices.Sorted(maps.Keys(c.there)) {
		pod := c.there[name]
		if pod.Labels[requeue.LabelWorker] != "" && (!lateAdoption || requeue.Attached(pod)) {
			attached = append(attached, name)
		}
		if !requeue.Gated(pod) && !requeue.Ended(pod) {
			running = append(running, name)
		}
		if of := requeue.RequeueOf(pod); of != "" {
			replacements[of] = append(replacements[of], name)
		}
	}
	c.breach("two pods of a chain carry airflow-worker", attached)
	c.breach("two pods of a chain may run", running)
	for _, pods := range replacements {
		c.breach("one pod has two replacements", pods)
	}
}

func (c *chain) breach(what string, pods []string) {
	if line := fmt.Sprintf("%s: %v", what, pods); len(pods) > 1 && !slices.Contains(c.broken, line) {
		c.broken = append(c.broken, line)
	}
}

// Moments are all that was seen, in order.
func (r *Record) Moments() []Moment {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clip(r.moments)
}

// Of is all that was seen of the pods of a name, in order.
func (r *Record) Of(name string) []Moment {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clip(r.byName[name])
}

// Latest is the pod of a name as it was seen last; nil when it is gone or was never there.
func (r *Record) Latest(name string) *corev1.Pod {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.there[name]
}

// There are the pods that are there, by name.
func (r *Record) There() []*corev1.Pod {
	r.mu.Lock()
	defer r.mu.Unlock()
	return byName(r.there)
}

// Ever are the pods of a task instance that were ever there, as they were seen last, by name.
func (r *Record) Ever(key requeue.Key) []*corev1.Pod {
	r.mu.Lock()
	defer r.mu.Unlock()
	var pods []*corev1.Pod
	for uid := range r.byTask[key.TaskID] {
		if pod := r.last[uid]; requeue.SameTaskInstance(pod, key) {
			pods = append(pods, pod)
		}
	}
	slices.SortFunc(pods, func(a, b *corev1.Pod) int { return strings.Compare(a.Name, b.Name) })
	return pods
}

// Pods are the pods of a chain that are there, by name.
func (r *Record) Pods(name string) []*corev1.Pod {
	r.mu.Lock()
	defer r.mu.Unlock()
	return byName(r.of(name).there)
}

func byName(there map[string]*corev1.Pod) []*corev1.Pod {
	pods := make([]*corev1.Pod, 0, len(there))
	for _, name := range slices.Sorted(maps.Keys(there)) {
		pods = append(pods, there[name])
	}
	return pods
}

// Changed is closed with the next event of a chain.
func (r *Record) Changed(name string) <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.of(name).changed.Next()
}

// Broken says which promises were broken on a chain, at any time.
func (r *Record) Broken(name string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.of(name).broken)
}

// AllBroken says which promises were broken on any chain, at any time.
func (r *Record) AllBroken() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var broken []string
	for _, name := range slices.Sorted(maps.Keys(r.chains)) {
		broken = append(broken, r.chains[name].broken...)
	}
	return broken
}

// Replaced says for each pod of a chain that was replaced how many pods there ever were that claimed to replace it.
func (r *Record) Replaced(name string) []int {
	r.mu.Lock()
	defer r.mu.Unlock()
	replaced := map[string]map[types.UID]bool{}
	for _, m := range r.of(name).moments {
		if of := requeue.RequeueOf(m.Pod); of != "" {
			if replaced[of] == nil {
				replaced[of] = map[types.UID]bool{}
			}
			replaced[of][m.Pod.UID] = true
		}
	}
	var counts []int
	for _, pods := range replaced {
		counts = append(counts, len(pods))
	}
	slices.Sort(counts)
	return counts
}

// History tells of a chain, for a test that failed.
func (r *Record) History(name string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return Story(r.of(name).moments, func(*corev1.Pod) bool { return true })
}

// Story tells of the moments of some pods, a line each.
func Story(moments []Moment, is func(*corev1.Pod) bool) string {
	var story strings.Builder
	for _, m := range moments {
		if is(m.Pod) {
			story.WriteString(m.String() + "\n")
		}
	}
	return story.String()
}
