package faultproxy

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

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
	p.relay(ctx, w, response.Body, this.expired)
}

// Lag keeps the events of a pod back for a while, in all watches: informers often know less than the server.
func (p *Proxy) Lag(pod string, d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lagging[pod] = time.Now().Add(d)
}

func (p *Proxy) lags(pod string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return time.Now().Before(p.lagging[pod])
}

// lagCheck is how often a watch looks whether events that were kept back may go.
const lagCheck = 50 * time.Millisecond

// relay writes line by line, each an event, so that the last one is whole when the watch expires.
func (p *Proxy) relay(ctx context.Context, w http.ResponseWriter, events io.Reader, expired <-chan struct{}) {
	write := func(events []byte) {
		_, _ = w.Write(events) //nolint:gosec // no browser reads them; a client that is gone ends the context
		_ = http.NewResponseController(w).Flush()
	}
	write(nil) // the client waits for the header
	read := make(chan []byte)
	go readLines(ctx, events, read)
	lines := (<-chan []byte)(read)
	kept := map[string][][]byte{} // by pod, in order
	check := time.NewTicker(lagCheck)
	defer check.Stop()
	for {
		select {
		case line, open := <-lines:
			if !open {
				lines = nil // what is kept back is still to come: the client goes on where it was, and that may be later
				break
			}
			pod := podIn(line)
			if len(kept[pod]) > 0 || p.lags(pod) {
				kept[pod] = append(kept[pod], line)
				continue
			}
			write(line)
		case <-check.C:
			write(p.letGo(kept))
			if lines == nil && len(kept) == 0 {
				return
			}
		case <-expired:
			write(expiredEvent())
			return
		case <-ctx.Done():
			return
		}
	}
}

// letGo takes out of what is kept back the events that may go by now.
func (p *Proxy) letGo(kept map[string][][]byte) []byte {
	var free []byte
	for pod, events := range kept {
		if !p.lags(pod) {
			free = append(free, slices.Concat(events...)...)
			delete(kept, pod)
		}
	}
	return free
}

func readLines(ctx context.Context, from io.Reader, lines chan<- []byte) {
	defer close(lines)
	reader := bufio.NewReader(from)
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
}

// podIn is the name of the pod that an event is about.
func podIn(event []byte) string {
	var e struct {
		Object metav1.PartialObjectMetadata `json:"object"`
	}
	if json.Unmarshal(event, &e) != nil {
		return ""
	}
	return e.Object.Name
}

func expiredEvent() []byte {
	status := apierrors.NewResourceExpired("too old resource version: 1 (2)").Status()
	status.TypeMeta = metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}
	event, _ := json.Marshal(map[string]any{"type": watch.Error, "object": status}) // never fails: a Status is plain data
	return append(event, '\n')
}
