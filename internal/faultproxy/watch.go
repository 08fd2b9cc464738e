package faultproxy

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
)

// podWatch is a watch on pods that is under way.
type podWatch struct {
	expired chan struct{}
}

func isPodWatch(r *http.Request) bool {
	return strings.HasSuffix(r.URL.Path, "/pods") && r.Method == http.MethodGet && r.URL.Query().Get("watch") != ""
}

// Expire ends all watches on pods that are under way as the API server does when their version is compacted: with a last
// event that says 410. It returns how many there were.
func (p *Proxy) Expire() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.watches)
	for w := range p.watches {
		close(w.expired)
		delete(p.watches, w)
	}
	return n
}

// watch passes the events of a watch on, one by one and as JSON whatever was asked for, until the watch is to expire.
func (p *Proxy) watch(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	asked := r.Clone(ctx)
	asked.URL.Scheme, asked.URL.Host, asked.Host, asked.RequestURI = p.target.Scheme, p.target.Host, p.target.Host, ""
	asked.Header.Set("Accept", "application/json")
	asked.Header.Del("Accept-Encoding")
	response, err := p.transport.RoundTrip(asked)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	defer func() { _ = response.Body.Close() }()
	w.Header().Set("Content-Type", response.Header.Get("Content-Type"))
	w.WriteHeader(response.StatusCode)
	if response.StatusCode != http.StatusOK {
		_, _ = io.Copy(w, response.Body) // the watch has failed in any case
		return
	}
	this := &podWatch{expired: make(chan struct{})}
	p.mu.Lock()
	p.watches[this] = true
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.watches, this)
	}()
	relay(ctx, w, response.Body, this.expired)
}

// relay writes line by line, each an event, so that the last one is whole when the watch expires.
func relay(ctx context.Context, w http.ResponseWriter, events io.Reader, expired <-chan struct{}) {
	flush := func() { _ = http.NewResponseController(w).Flush() }
	flush() // the client waits for the header
	lines := make(chan []byte)
	go func() {
		defer close(lines)
		reader := bufio.NewReader(events)
		for {
			line, err := reader.ReadBytes('\n')
			if err != nil {
				return
			}
			select {
			case lines <- line:
			case <-ctx.Done():
				return
			}
		}
	}()
	for {
		select {
		case line, open := <-lines:
			if !open {
				return
			}
			_, _ = w.Write(line) // a client that is gone ends the context
			flush()
		case <-expired:
			_, _ = w.Write(expiredEvent())
			flush()
			return
		case <-ctx.Done():
			return
		}
	}
}

func expiredEvent() []byte {
	status := apierrors.NewResourceExpired("too old resource version: 1 (2)").Status()
	status.TypeMeta = metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}
	event, _ := json.Marshal(map[string]any{"type": watch.Error, "object": status}) // never fails: a Status is plain data
	return append(event, '\n')
}
