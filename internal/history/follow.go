package history

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

// pause is between two tries to reach the API server.
const pause = 50 * time.Millisecond

// follower knows all that there is of a resource, and sees every event of it. No reflector is used: a test looks for those
// that a watcher leaves behind.
type follower struct {
	source  *cache.ListWatch
	list    func([]runtime.Object)
	see     func(watch.EventType, runtime.Object)
	version string // the last that was seen; empty when the API server has forgotten it
}

// follow shows what there is of a resource, and then every event of it, until the test ends. An API server under load ends
// the watch of a client that is not quick enough: it goes on where it was. One that was started anew has forgotten where
// that was: it lists anew.
func follow(t testing.TB, client rest.Interface, resource, namespace string, list func([]runtime.Object), see func(watch.EventType, runtime.Object)) {
	t.Helper()
	f := &follower{source: cache.NewListWatchFromClient(client, resource, namespace, fields.Everything()), list: list, see: see}
	require.NoError(t, f.begin(t.Context()))
	var following sync.WaitGroup
	following.Go(func() {
		for ctx := t.Context(); ctx.Err() == nil; time.Sleep(pause) {
			if f.version != "" || f.begin(ctx) == nil {
				f.goOn(ctx)
			}
		}
	})
	t.Cleanup(following.Wait)
}

// begin lists.
func (f *follower) begin(ctx context.Context) error {
	list, err := f.source.ListWithContext(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	objects, err := meta.ExtractList(list)
	if err != nil {
		return err
	}
	of, err := meta.ListAccessor(list)
	if err != nil {
		return err
	}
	f.list(objects)
	f.version = of.GetResourceVersion()
	return nil
}

// goOn watches from the last version on, until the watch ends.
func (f *follower) goOn(ctx context.Context) {
	events, err := f.source.WatchWithContext(ctx, metav1.ListOptions{ResourceVersion: f.version, AllowWatchBookmarks: true})
	if apierrors.IsGone(err) || apierrors.IsResourceExpired(err) {
		f.version = ""
	}
	if err != nil {
		return
	}
	defer events.Stop()
	for event := range events.ResultChan() {
		object, err := meta.Accessor(event.Object)
		if event.Type == watch.Error || err != nil {
			f.version = ""
			return
		}
		f.version = object.GetResourceVersion()
		if event.Type != watch.Bookmark {
			f.see(event.Type, event.Object)
		}
	}
}
