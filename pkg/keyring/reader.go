package keyring

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// Path is where a reader says which keys it has.
const Path = "/signing-keys"

// Held are the ids of the keys that a process has, and of the one that it signs with.
type Held struct {
	Keys  []string `json:"keys"`
	Signs string   `json:"signs"`
}

func heldOf(keys requeue.Keys) Held {
	return Held{Keys: slices.AppendSeq([]string{}, maps.Keys(keys.Secrets)), Signs: keys.Current}
}

// Handler answers with what a process holds: ids, and nothing of the keys.
func Handler(keys func() requeue.Keys) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		held := heldOf(keys())
		slices.Sort(held.Keys)
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(held) // whoever asked has gone
	})
}

// The components that read keys, as their pods are labelled.
const (
	webhook = "webhook"
	watcher = "watcher"
)

// Reader is a pod of the installation that has keys mounted.
type Reader struct {
	Pod       string
	Component string
	Held
	Silent string // why it can't be told what it holds; empty where it has said so
}

// has reports whether a reader has said that it can verify what a key signs.
func has(key string) func(Reader) bool {
	return func(r Reader) bool { return r.Silent == "" && slices.Contains(r.Keys, key) }
}

// signs reports whether a reader has said that it signs with a key and no other.
func signs(key string) func(Reader) bool {
	return func(r Reader) bool { return has(key)(r) && r.Signs == key }
}

// all reports whether each reader is as wanted. That there is no webhook or no watcher among them is no good sign: they are
// not seen as they should be.
func all(readers []Reader, want func(Reader) bool) bool {
	is := func(component string) func(Reader) bool {
		return func(r Reader) bool { return r.Component == component }
	}
	return slices.ContainsFunc(readers, is(webhook)) && slices.ContainsFunc(readers, is(watcher)) &&
		!slices.ContainsFunc(readers, func(r Reader) bool { return !want(r) })
}

// Seen is since when, without a break, every reader has been seen to be as the next step needs it. It may be lost: then
// that step comes later.
type Seen struct {
	next, current string
	HaveNext      time.Time // every reader has the next key
	SignCurrent   time.Time // every reader signs with the current one
}

// And is what has been seen when readers are seen once more.
func (s Seen) And(ring Ring, readers []Reader, now time.Time) Seen {
	since := func(before time.Time, same, seen bool) time.Time {
		switch {
		case !seen:
			return time.Time{}
		case same && !before.IsZero():
			return before
		}
		return now
	}
	return Seen{next: ring.Next, current: ring.Current,
		HaveNext:    since(s.HaveNext, s.next == ring.Next, ring.Next != "" && all(readers, has(ring.Next))),
		SignCurrent: since(s.SignCurrent, s.current == ring.Current, ring.Current != "" && all(readers, signs(ring.Current)))}
}

// WaitsFor says which readers the next step waits for, and how; no reason where it waits for none of them.
func (r Ring) WaitsFor(readers []Reader) (Reason, string) {
	want, what := signs(r.Current), "these do not sign with key "+r.Current+" yet"
	if r.Next != "" {
		want, what = has(r.Next), "these do not have key "+r.Next+" yet"
	}
	var silent, behind []string
	for _, reader := range readers {
		switch {
		case reader.Silent != "":
			silent = append(silent, fmt.Sprintf("%s (%s)", reader.Pod, reader.Silent))
		case !want(reader):
			behind = append(behind, reader.Pod)
		}
	}
	switch {
	case len(silent) > 0:
		return ReaderSilent, "these do not say which keys they have: " + strings.Join(silent, ", ")
	case len(behind) > 0:
		return ReaderBehind, what + ": " + strings.Join(behind, ", ")
	case !all(readers, want):
		return NoReaders, "no pod of the webhook, or none of the watcher, is found by its labels"
	}
	return "", ""
}
