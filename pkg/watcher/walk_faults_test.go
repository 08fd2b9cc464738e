package watcher_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
	"github.com/airflow-requeue/airflow-requeue/pkg/watcher"
)

// trouble is what becomes of one request of a process that lives on.
type trouble int

const (
	unheard    trouble = iota // the request is lost
	unanswered                // it arrives, its answer is lost
	throttled                 // 429
	broken                    // 500
	conflicted                // 409, though nothing has changed
)

func (t trouble) String() string {
	return [...]string{"lost", "done but unanswered", "answered 429", "answered 500", "answered 409"}[t]
}

// runner is one watcher of the walk, and what troubles it.
type runner struct {
	*process
	w  *walk
	id int

	mu       sync.Mutex
	troubles []trouble     // of its next requests about pods
	last     fate          // of its next write, if that is to be its last
	paused   chan struct{} // closed when it may go on; nil: it runs
	read     map[string]requeue.TaskInstance
}

// aLift is the write that took the hold off a pod, and the row that its writer had read last.
type aLift struct {
	at        time.Time
	row       requeue.TaskInstance
	byRelease bool
}

// roundTripper is one in a chain of them.
type roundTripper func(*http.Request) (*http.Response, error)

// RoundTrip sends a request.
func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// liftOf is the pod whose hold the request takes off.
func liftOf(r *http.Request) (pod string, ok bool) {
	request, _ := describeRequest(r)
	name, ok := strings.CutPrefix(request, "PATCH ")
	return name, ok && strings.Contains(bodyOf(r), `"remove","path":"/metadata/labels/`+requeue.LabelHold+`"`)
}

// via troubles a request, or holds it up while the process is paused.
func (r *runner) via(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(request *http.Request) (*http.Response, error) {
		what, write := describeRequest(request)
		if what == "" {
			return next.RoundTrip(request)
		}
		r.mu.Lock()
		paused := r.paused
		r.mu.Unlock()
		if paused != nil {
			select {
			case <-paused:
			case <-request.Context().Done():
				return nil, request.Context().Err()
			}
		}
		if r.wire.isDead() {
			return nil, errLost
		}
		if pod, ok := liftOf(request); ok {
			r.mu.Lock()
			row := r.read[taskOf(pod)]
			r.mu.Unlock()
			r.w.lifted(pod, aLift{at: time.Now(), row: row})
		}
		meets, troubled := r.nextTrouble()
		if !troubled || meets == conflicted && !write {
			return next.RoundTrip(request)
		}
		switch meets {
		case unheard:
			return nil, errLost
		case unanswered:
			if response, err := next.RoundTrip(request); err == nil {
				_ = response.Body.Close()
			}
			return nil, errLost
		case throttled:
			return answer(request, http.StatusTooManyRequests, "TooManyRequests"), nil
		case broken:
			return answer(request, http.StatusInternalServerError, "InternalError"), nil
		}
		if request.Method == http.MethodPost {
			return next.RoundTrip(request) // a create meets no older version
		}
		return answer(request, http.StatusConflict, "Conflict"), nil
	})
}

func (r *runner) nextTrouble() (trouble, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.troubles) == 0 {
		return 0, false
	}
	t := r.troubles[0]
	r.troubles = r.troubles[1:]
	return t, true
}

func answer(r *http.Request, code int, reason string) *http.Response {
	body := fmt.Sprintf(`{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"the walk says so","reason":%q,"code":%d}`, reason, code)
	return &http.Response{StatusCode: code, Request: r, Header: http.Header{"Content-Type": {"application/json"}},
		Body: io.NopCloser(strings.NewReader(body))}
}

// taskOf is the task of a pod of the walk, whose names are dag-<task>-<random>.
func taskOf(pod string) string {
	if parts := strings.Split(pod, "-"); len(parts) > 1 {
		return parts[1]
	}
	return ""
}

// newRunner starts a watcher that leads.
func (w *walk) newRunner() *runner {
	r := &runner{w: w, read: map[string]requeue.TaskInstance{}}
	w.started++
	r.id = w.started
	r.process = w.start(func(p *process) {
		r.process = p
		p.wire.via = r.via
		p.wire.write = func(int, string) fate {
			r.mu.Lock()
			defer r.mu.Unlock()
			return r.last
		}
		p.rows.saw = func(ref requeue.Ref, task requeue.TaskInstance) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.read[ref.TaskID] = task
		}
	})
	w.lead(r.process)
	w.runners = append(w.runners, r)
	return r
}

// end stops a watcher for good: gracefully, or after its death.
func (w *walk) end(r *runner) {
	r.goOn()
	r.stop()
	w.runners = slices.DeleteFunc(w.runners, func(other *runner) bool { return other == r })
}

// reap ends the watchers that have been killed.
func (w *walk) reap() {
	for _, r := range slices.Clone(w.runners) {
		if r.wire.isDead() {
			w.end(r)
		}
	}
}

func (r *runner) goOn() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.paused != nil {
		close(r.paused)
		r.paused = nil
	}
}

// atEase takes all troubles off a watcher; one that was to be killed at its next write is killed now.
func (r *runner) atEase() {
	r.mu.Lock()
	r.troubles = nil
	doomed := r.last != arrives
	r.mu.Unlock()
	if doomed {
		r.wire.die()
	}
	r.goOn()
	r.rows.breaks(nil)
}

func (w *walk) startWatcher(_ *slot, pick int) string {
	if len(w.runners) > 1 || len(w.runners) == 1 && pick%3 != 0 && w.runners[0].runs() {
		return ""
	}
	return fmt.Sprintf("watcher %d starts to lead", w.newRunner().id)
}

func (r *runner) runs() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.paused == nil
}

// disturb does something to one of the watchers.
func disturb(how func(w *walk, r *runner, pick int) string) func(*walk, *slot, int) string {
	return func(w *walk, _ *slot, pick int) string {
		if len(w.runners) == 0 {
			return ""
		}
		r := w.runners[pick%len(w.runners)]
		return fmt.Sprintf("watcher %d %s", r.id, how(w, r, pick/2))
	}
}

func stops(w *walk, r *runner, _ int) string {
	w.end(r)
	return "is stopped"
}

func isKilledAtAWrite(_ *walk, r *runner, pick int) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.last = lost; pick%2 == 0 {
		r.last = answerLost
		return "is to be killed after its next write"
	}
	return "is to be killed before its next write"
}

func meetsTrouble(_ *walk, r *runner, pick int) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	for range 1 + pick%3 {
		r.troubles = append(r.troubles, trouble(pick/3%5))
		pick /= 2
	}
	return fmt.Sprintf("is to have its next requests %v", r.troubles)
}

func stallsOrGoesOn(_ *walk, r *runner, _ int) string {
	if !r.runs() {
		r.goOn()
		return "goes on"
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.paused = make(chan struct{})
	return "stalls"
}

func losesOrRegainsTheDatabase(_ *walk, r *runner, _ int) string {
	r.rows.mu.Lock()
	defer r.rows.mu.Unlock()
	if r.rows.broken != nil {
		r.rows.broken = nil
		return "can read the database again"
	}
	r.rows.broken = errors.New("the walk says so")
	return "can't read the database"
}

// releaseEverything runs ReleaseAll beside all else.
func (w *walk) releaseEverything(*slot, int) string {
	if w.releaseUnderWay() != nil {
		return ""
	}
	over := make(chan error, 1)
	w.release = over
	client := w.wired(&wire{bell: w.bell, via: func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(r *http.Request) (*http.Response, error) {
			if pod, ok := liftOf(r); ok {
				w.lifted(pod, aLift{at: time.Now(), byRelease: true})
			}
			return next.RoundTrip(r)
		})
	}})
	go func() {
		_, err := watcher.ReleaseAll(w.ctx, client, w.releasing())
		over <- err
	}()
	return "all holds are lifted"
}

// releaseUnderWay is the ReleaseAll that is under way; nil when there is none.
func (w *walk) releaseUnderWay() chan error {
	if w.release == nil || len(w.release) > 0 {
		return nil
	}
	return w.release
}
