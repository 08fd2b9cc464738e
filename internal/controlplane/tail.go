package controlplane

import (
	"io"
	"sync"
)

// tailSize is enough for the lines in which a server says why it does not start.
const tailSize = 4096

// tail keeps the end of what both servers write, and passes all of it on.
type tail struct {
	to   io.Writer // may be nil
	mu   sync.Mutex
	last []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last = append(t.last, p...)
	t.last = t.last[max(0, len(t.last)-tailSize):]
	if t.to == nil {
		return len(p), nil
	}
	return t.to.Write(p)
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.last)
}
