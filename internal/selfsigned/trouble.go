package selfsigned

import (
	"log/slog"
	"sync"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/utils/clock"
)

// trouble says what goes wrong once: cert-manager's authority does so at each try, every second or every ten. What it says of
// what goes well is said by us when it has come to something.
type trouble struct {
	log   *slog.Logger
	clock clock.PassiveClock

	mu   sync.Mutex
	last map[string]time.Time // when a trouble was there last, by its text
}

// quiet is how long a trouble is gone before it is a new one.
const quiet = time.Minute

// say logs an error of ours or of cert-manager's; nil is none.
func (t *trouble) say(what string, err error) {
	if err == nil || apierrors.IsConflict(err) { // another replica was faster
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.clock.Now()
	for text, at := range t.last {
		if now.Sub(at) > quiet {
			delete(t.last, text)
		}
	}
	_, said := t.last[err.Error()]
	if t.last == nil {
		t.last = map[string]time.Time{}
	}
	t.last[err.Error()] = now
	if !said {
		t.log.Warn("self-signed certificate in trouble", "what", what, "error", err)
	}
}

// Init is logr.LogSink's; nothing is to be prepared.
func (*trouble) Init(logr.RuntimeInfo) {}

// Enabled is for no level: errors come all the same.
func (*trouble) Enabled(int) bool { return false }

// Info says nothing.
func (*trouble) Info(int, string, ...any) {}

// WithValues adds nothing.
func (t *trouble) WithValues(...any) logr.LogSink { return t }

// WithName adds nothing.
func (t *trouble) WithName(string) logr.LogSink { return t }

// Error is told at every try that goes badly.
func (t *trouble) Error(err error, _ string, _ ...any) {
	t.say("not signed", err)
}
