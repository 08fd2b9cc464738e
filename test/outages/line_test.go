package outages

import (
	"io"
	"net"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/airflow-requeue/airflow-requeue/internal/programs"
)

// line is the network between a watcher and its database: it can be cut, and can swallow all that is sent.
type line struct {
	t       *testing.T
	address string
	target  string

	mu       sync.Mutex
	listener net.Listener
	conns    map[net.Conn]bool
	swallows bool
}

func newLine(t *testing.T, target string) *line {
	t.Helper()
	l := &line{t: t, address: programs.FreeAddress(t), target: target, conns: map[net.Conn]bool{}}
	l.mend()
	t.Cleanup(l.cut)
	return l
}

// mend lets connections through from now on.
func (l *line) mend() {
	l.cut()
	listener, err := net.Listen("tcp", l.address)
	if !assert.NoError(l.t, err) {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.listener, l.swallows = listener, false
	go l.accept(listener)
}

// cut ends all connections and refuses new ones.
func (l *line) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.listener != nil {
		_ = l.listener.Close()
	}
	for c := range l.conns {
		_ = c.Close()
	}
}

// swallow accepts connections and takes what is sent, and nothing ever comes back.
func (l *line) swallow() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.swallows = true
}

func (l *line) accept(listener net.Listener) {
	for {
		from, err := listener.Accept()
		if err != nil {
			return
		}
		to, err := net.Dial("tcp", l.target)
		if !assert.NoError(l.t, err) {
			_ = from.Close()
			continue
		}
		l.mu.Lock()
		l.conns[from], l.conns[to] = true, true
		l.mu.Unlock()
		go l.carry(from, to)
		go l.carry(to, from)
	}
}

// carry copies one way until either end is closed.
func (l *line) carry(from, to net.Conn) {
	_, _ = io.Copy(hole{l, to}, from)
	_, _ = from.Close(), to.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, from)
	delete(l.conns, to)
}

// hole is one end of the line.
type hole struct {
	line *line
	net.Conn
}

func (h hole) Write(p []byte) (int, error) {
	h.line.mu.Lock()
	swallows := h.line.swallows
	h.line.mu.Unlock()
	if swallows {
		return len(p), nil
	}
	return h.Conn.Write(p)
}
