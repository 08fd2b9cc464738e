package flags

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"k8s.io/klog/v2"
)

// LogClientGo sends what client-go has to say to log. It says the same with every retry; here each message comes once a
// minute at most.
func LogClientGo(log *slog.Logger) {
	klog.SetSlogLogger(slog.New(&onceAMinute{Handler: log.Handler(), said: &said{at: map[string]time.Time{}}, now: time.Now}))
}

// onceAMinute drops a record whose message was logged in the last minute. client-go's messages are constants; what
// differs from retry to retry is in the attributes.
type onceAMinute struct {
	slog.Handler
	said *said
	now  func() time.Time
}

type said struct {
	mu sync.Mutex
	at map[string]time.Time // by message
}

// Handle logs a record, or drops it.
func (h *onceAMinute) Handle(ctx context.Context, r slog.Record) error {
	now := h.now()
	h.said.mu.Lock()
	last, ok := h.said.at[r.Message]
	fresh := !ok || now.Sub(last) >= time.Minute
	if fresh {
		h.said.at[r.Message] = now
	}
	h.said.mu.Unlock()
	if !fresh {
		return nil
	}
	return h.Handler.Handle(ctx, r)
}

// WithAttrs keeps what was said in common.
func (h *onceAMinute) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &onceAMinute{Handler: h.Handler.WithAttrs(attrs), said: h.said, now: h.now}
}

// WithGroup keeps what was said in common.
func (h *onceAMinute) WithGroup(name string) slog.Handler {
	return &onceAMinute{Handler: h.Handler.WithGroup(name), said: h.said, now: h.now}
}
