package outages

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"k8s.io/client-go/rest"

	"github.com/airflow-requeue/airflow-requeue/internal/world"
)

// each is how many pods there are in every state.
const each = 5

// noSweep has the webhook leave the release to the test.
const noSweep = "--no-leader-release-after=1h"

// release runs airflow-requeue-watcher release --all.
func (s *site) release(config *rest.Config, flags ...string) *process {
	s.t.Helper()
	return start(s.t, "watcher", append(s.Release(config), flags...)...)
}

// uninstalling is a site with pods in every state and without a watcher, whose webhook was just unregistered, and how many
// of its pods are tracked.
func uninstalling(t *testing.T) (s *site, tracked int) {
	t.Helper()
	s = newSite(t, shared.Servers)
	inEveryState(s, each, noSweep)
	s.UnregisterWebhook()
	return s, len(s.trackedNow())
}

// did is what a release said that it did.
type did struct{ Released, Reported, Deleted, Stripped int }

func (p *process) did() (d did) {
	p.t.Helper()
	n, err := fmt.Sscanf(p.Stdout.String(), "installation "+world.Installation+
		": %d released, %d reported as failed, %d uncommitted replacements deleted, %d let go\n", &d.Released, &d.Reported, &d.Deleted, &d.Stripped)
	assert.NoError(p.t, err, "%q", p.Stdout.String())
	assert.Equal(p.t, 4, n)
	return d
}

// released are the lines of a release about pods, as "pod: what".
func (p *process) released() []string {
	p.t.Helper()
	var lines []string
	for line := range strings.Lines(p.Log.String()) {
		var record struct{ Msg, Pod, What string }
		if json.Unmarshal([]byte(line), &record) == nil && record.Msg == "pod released" {
			lines = append(lines, record.Pod+": "+record.What)
		}
	}
	return lines
}

func (d did) all() int { return d.Released + d.Reported + d.Deleted + d.Stripped }

// nothingLeft says that nothing of ours is left on any pod but tombstones, and that another release finds nothing to do.
func (s *site) nothingLeft() {
	s.t.Helper()
	again := s.release(s.watcherConfig())
	assert.Zero(s.t, again.Exit())
	assert.Zero(s.t, again.did())
	assert.Empty(s.t, s.trackedNow())
	for name, p := range s.Pods() {
		assert.Empty(s.t, p.Finalizers, name)
	}
}

// settlesWithoutUs waits for Airflow to have come to an end with all tasks, but for those that it revoked itself.
func (s *site) settlesWithoutUs() {
	s.t.Helper()
	close(s.over)
	eventually(s.t, "all is settled", func() (left []string) {
		for _, l := range s.unsettled() {
			if !strings.HasPrefix(l, "task revoked-") {
				left = append(left, l)
			}
		}
		return left
	})
	s.nothingDoubled()
	assert.Empty(s.t, s.entries(func(e *entry) bool { return e.fate == "revoked" && len(e.failed) > 0 }), "Airflow ignores the end of what it revoked")
}

func TestReleaseAllLiftsEveryHoldInTheOrderOfAnUninstallation(t *testing.T) {
	t.Parallel()
	s, tracked := uninstalling(t)
	assert.GreaterOrEqual(t, tracked, 60)
	release := s.release(s.watcherConfig())
	assert.Zero(t, release.Exit())
	t.Logf("of %d pods: %s", tracked, release.Stdout.String())
	assert.Equal(t, tracked, release.did().all(), "it says what it did, once for each pod")
	assert.Equal(t, tracked, release.messages()["pod released"])
	s.nothingLeft()
	s.settlesWithoutUs()
	release.sparing()
}

func TestReleaseAllEndsWhileAWatcherWorksAndPodsGoOnFailing(t *testing.T) {
	t.Parallel()
	s := newSite(t, shared.Servers)
	inEveryState(s, each, noSweep)
	then := s.left()
	watcher := s.startWatcher(s.watcherConfig())
	stop := s.work(time.Second/4, day()...)
	released := func() int {
		t.Helper()
		release := s.release(s.watcherConfig())
		assert.Zero(t, release.Exit())
		release.sparing()
		t.Log(release.Stdout.String())
		return release.did().all()
	}
	assert.Positive(t, released()) // before the watcher leads: the Lease of the killed one is not over yet
	until(t, "the watcher leads", func() bool { return watcher.metric("airflow_requeue_leader") == 1 })
	s.untilHolding()
	for times, beside := 0, 0; times < 3 || beside == 0; times++ { // the watcher may have been quicker with all that it found
		s.untilReplaced(time.Now())
		beside += released()
	}
	stop()
	until(t, "what was held at the start is let go or settled", func() bool {
		for _, name := range s.trackedNow() {
			if p := s.Pods()[name]; p != nil && then[string(p.UID)] != nil {
				return false
			}
		}
		return true
	})
	s.settlesWithoutUs()
	watcher.sparing()
}

func TestAReleaseThatIsInterruptedIsRunAgain(t *testing.T) {
	t.Parallel()
	s, tracked := uninstalling(t)
	const some = 10
	stuck := func() (_ *front, reached chan struct{}) { // after some writes nothing is answered any more
		var writes atomic.Int64
		reached = make(chan struct{})
		return newFront(t, s.watcherConfig(), func(_ http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodGet {
				return false
			}
			n := writes.Add(1)
			if n == some+1 {
				close(reached)
			}
			if n > some {
				_, _ = io.Copy(io.Discard, r.Body) // only then does the server see the client go
				<-r.Context().Done()
			}
			return n > some
		}), reached
	}
	first, reached := stuck()
	killed := s.release(first.config())
	<-reached
	killed.Kill()
	assert.Less(t, len(s.trackedNow()), tracked, "what was released stays released")
	assert.NotEmpty(t, s.trackedNow())

	second, _ := stuck()
	late := s.release(second.config(), "--timeout=30s")
	assert.Equal(t, 1, late.Exit())
	assert.Contains(t, late.Log.String(), "--timeout=30s is over; run it again")
	assert.Positive(t, late.did().all(), "it says what it did all the same")
	assert.NotEmpty(t, s.trackedNow())

	last := s.release(s.watcherConfig())
	assert.Zero(t, last.Exit())
	assert.Positive(t, last.did().all())
	s.nothingLeft()
	s.settlesWithoutUs()
}

func TestTwoReleasesAtOnceLiftEveryHoldOnce(t *testing.T) {
	t.Parallel()
	s, tracked := uninstalling(t)
	first, second := s.release(s.watcherConfig()), s.release(s.watcherConfig())
	assert.Zero(t, first.Exit())
	assert.Zero(t, second.Exit())
	t.Logf("of %d pods: %s and %s", tracked, first.Stdout.String(), second.Stdout.String())
	done := append(first.released(), second.released()...)
	slices.Sort(done)
	// Of two patches that take the last finalizer off a deleted pod at once, the API server says of both that they did.
	assert.Len(t, slices.CompactFunc(slices.Clone(done), func(a, b string) bool { return a == b && strings.HasSuffix(a, ": finalizer dropped") }), tracked)
	assert.Equal(t, len(done), first.did().all()+second.did().all(), "each says what it did")
	s.nothingLeft()
	s.settlesWithoutUs()
}

func TestReleaseAllComesToItsEndThoughTheAPIServerRefusesNowAndThen(t *testing.T) {
	t.Parallel()
	s, tracked := uninstalling(t)
	var requests atomic.Int64
	moody := newFront(t, s.watcherConfig(), func(w http.ResponseWriter, r *http.Request) bool {
		switch n := requests.Add(1); {
		case n%23 == 0:
			refuse(w, http.StatusInternalServerError, "InternalError", "etcdserver: leader changed")
		case n%7 == 0:
			w.Header().Set("Retry-After", "1")
			refuse(w, http.StatusTooManyRequests, "TooManyRequests", "the server is busy")
		default:
			return false
		}
		return true
	})
	sum := 0
	for runs := 1; ; runs++ {
		require.LessOrEqual(t, runs, 20, "it never ends")
		release := s.release(moody.config())
		code := release.Exit()
		sum += release.did().all()
		release.sparing()
		if code == 0 {
			t.Logf("%d pods, %d runs, %d requests", tracked, runs, requests.Load())
			break
		}
	}
	assert.GreaterOrEqual(t, sum, tracked)
	s.nothingLeft()
	s.settlesWithoutUs()
}
