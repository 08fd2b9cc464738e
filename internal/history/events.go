package history

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
)

// Events are the Events on a namespace's pods, as a watch on them has shown.
type Events struct {
	bell *Bell

	mu   sync.Mutex
	said map[types.UID][]string
}

// WatchEvents begins to keep a namespace's Events, until the test ends; the bell rings with each.
func WatchEvents(t testing.TB, client kubernetes.Interface, namespace string, bell *Bell) *Events {
	t.Helper()
	e := &Events{bell: bell, said: map[types.UID][]string{}}
	follow(t, client.EventsV1().RESTClient(), "events", namespace, func(list []runtime.Object) {
		for _, event := range list {
			e.add(event)
		}
	}, func(_ watch.EventType, event runtime.Object) { e.add(event) })
	return e
}

// On returns the Events on a pod: "type reason action: note", each once.
func (e *Events) On(pod *corev1.Pod) []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.said[pod.UID])
}

func (e *Events) add(object runtime.Object) {
	if event, ok := object.(*eventsv1.Event); ok {
		line := fmt.Sprintf("%s %s %s: %s", event.Type, event.Reason, event.Action, event.Note)
		e.mu.Lock()
		if uid := event.Regarding.UID; !slices.Contains(e.said[uid], line) {
			e.said[uid] = append(e.said[uid], line)
		}
		e.mu.Unlock()
		e.bell.Ring()
	}
}
