package watcher_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"time"

	"k8s.io/client-go/rest"
)

// sameClock has the API server's clock run ahead as the watchers' does: in a walk that moves the clock by minutes, a pod
// that is deleted now would else have been deleted minutes ago. Of each object, the times of its creation and deletion
// are as much ahead as the clock was when they were first read.
type sameClock struct {
	next  http.RoundTripper
	clock *runningClock
	seen  *sync.Map // time.Duration by UID and time
	// times finds those in the JSON of an object, which has them right after its UID.
	times *regexp.Regexp
}

func withSameClock(config *rest.Config, clock *runningClock) *rest.Config {
	c := sameClock{clock: clock, seen: &sync.Map{}, times: regexp.MustCompile(`"uid":"([^"]+)","resourceVersion":"\d+",` +
		`(?:"generation":\d+,)?"creationTimestamp":"([^"]+)"(?:,"deletionTimestamp":"([^"]+)")?`)}
	config.ContentType, config.AcceptContentTypes = "application/json", "application/json" // not protobuf
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		over := c
		over.next = next
		return &over
	})
	return config
}

func (c *sameClock) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := c.next.RoundTrip(r)
	if err != nil || !strings.HasPrefix(response.Header.Get("Content-Type"), "application/json") {
		return response, err
	}
	response.Header.Del("Content-Length")
	response.ContentLength = -1
	response.Body = &shifted{ReadCloser: response.Body, values: json.NewDecoder(response.Body), shift: c.shift}
	return response, nil
}

func (c *sameClock) shift(value []byte) []byte {
	var out []byte
	from := 0
	for _, m := range c.times.FindAllSubmatchIndex(value, -1) {
		uid := string(value[m[2]:m[3]])
		for _, at := range [][]int{m[4:6], m[6:8]} {
			if at[0] < 0 {
				continue
			}
			out = append(out, value[from:at[0]]...)
			out = append(out, c.ahead(uid, string(value[at[0]:at[1]]))...)
			from = at[1]
		}
	}
	return append(out, value[from:]...)
}

func (c *sameClock) ahead(uid, stamp string) string {
	t, err := time.Parse(time.RFC3339, stamp)
	if err != nil {
		return stamp
	}
	c.clock.mu.Lock()
	ahead := c.clock.ahead
	c.clock.mu.Unlock()
	first, _ := c.seen.LoadOrStore(uid+stamp, ahead)
	return t.Add(first.(time.Duration)).UTC().Format(time.RFC3339) //nolint:forcetypeassert // nothing else is stored
}

// shifted is the body of an answer, value by value: a watch sends many, all else is one.
type shifted struct {
	io.ReadCloser
	values *json.Decoder
	shift  func([]byte) []byte
	left   bytes.Buffer
}

func (b *shifted) Read(p []byte) (int, error) {
	if b.left.Len() == 0 {
		var value json.RawMessage
		if err := b.values.Decode(&value); err != nil {
			return 0, err
		}
		b.left.Write(b.shift(value))
	}
	return b.left.Read(p)
}
