package keyring

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

// begun is when all tables begin; the next key that is made at it is called fresh.
var begun = time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)

const (
	fresh   = "k20261130-120000"
	quarter = 90 * 24 * time.Hour
)

// reader is one that answers.
func reader(pod, component, signs string, keys ...string) Reader {
	return Reader{Pod: pod, Component: component, Held: Held{Keys: keys, Signs: signs}}
}

// readers are a webhook and a watcher that have and sign the same.
func readers(signs string, keys ...string) []Reader {
	return []Reader{reader("watcher-0", watcher, signs, keys...), reader("webhook-0", webhook, signs, keys...)}
}

func silent(pod, component string) Reader {
	return Reader{Pod: pod, Component: component, Silent: "connection refused"}
}

// The cases are in the order in which they are decided: in each the next ones would match as well, as far as they can.
func TestDecide(t *testing.T) {
	ago := func(d time.Duration) time.Time { return begun.Add(-d) }
	moving := Ring{Keys: []string{"k0", "k1", "k2"}, Current: "k1", Next: "k2", Old: []string{"k0"}, Since: ago(quarter), Asked: true}
	old := moving
	old.Next, old.Asked = "", false
	asked := old
	asked.Asked = true
	alone := Ring{Keys: []string{"k1"}, Current: "k1", Since: ago(quarter)}
	have := Seen{HaveNext: ago(haveFor)}
	sign := Seen{SignCurrent: ago(signFor)}
	everyone := readers("k1", "k0", "k1", "k2")
	behind := append(readers("k1", "k0", "k1", "k2"), reader("webhook-1", webhook, "k1", "k0", "k1"))
	late := append(readers("k1", "k0", "k1", "k2"), reader("webhook-1", webhook, "k0", "k0", "k1", "k2"))
	for _, c := range []struct {
		name string
		in   Input
		want Step
	}{
		{"in trouble", Input{Ring: Ring{Trouble: "it is immutable"}},
			Step{Wait, "", Trouble, "it is immutable"}},
		{"emptied, and keys are mounted here", Input{Own: []string{"k1"}, Readers: everyone},
			Step{Restore, "", Emptied, "the Secret was emptied: what is mounted here is put back"}},
		{"emptied, and others have keys", Input{Readers: everyone},
			Step{Wait, "", OthersHave, "the Secret was emptied, but watcher-0 has keys: the leader puts its own back"}},
		{"emptied, since pods are signed, and one may have keys", Input{Readers: append(readers(""), silent("webhook-1", webhook)), Signed: true},
			Step{Wait, "", OthersHave, "the Secret was emptied, since pods are signed, and webhook-1 may have keys (connection refused)"}},
		{"emptied, and nobody has keys any more", Input{Readers: readers(""), Signed: true},
			Step{Fill, fresh, Empty, "the first key"}},
		{"empty, and all wait for keys", Input{Readers: append(readers(""), silent("webhook-1", webhook))},
			Step{Fill, fresh, Empty, "the first key"}},
		{"empty, and nobody is there", Input{},
			Step{Fill, fresh, Empty, "the first key"}},

		{"the next key is not everywhere, and one does not answer", Input{Ring: moving, Own: []string{"k2"}, Readers: append(behind, silent("watcher-1", watcher))},
			Step{Wait, "k2", ReaderSilent, "these do not say which keys they have: watcher-1 (connection refused)"}},
		{"the next key is not everywhere", Input{Ring: moving, Own: []string{"k2"}, Readers: behind, Seen: have},
			Step{Wait, "k2", ReaderBehind, "these do not have key k2 yet: webhook-1"}},
		{"there is no webhook to be seen", Input{Ring: moving, Own: []string{"k2"}, Readers: everyone[:1], Seen: have},
			Step{Wait, "k2", NoReaders, "no pod of the webhook, or none of the watcher, is found by its labels"}},
		{"there is no watcher to be seen", Input{Ring: moving, Own: []string{"k2"}, Readers: everyone[1:], Seen: have},
			Step{Wait, "k2", NoReaders, "no pod of the webhook, or none of the watcher, is found by its labels"}},
		{"the next key is not here", Input{Ring: moving, Own: []string{"k1"}, Readers: everyone, Seen: have},
			Step{Wait, "k2", ReaderBehind, "this process does not have key k2 yet"}},
		{"the next key is everywhere, since a moment ago", Input{Ring: moving, Own: []string{"k2"}, Readers: everyone, Seen: Seen{HaveNext: ago(haveFor - 1)}},
			Step{Wait, "k2", Settling, "every reader has key k2"}},
		{"the next key is everywhere, since nobody knows when", Input{Ring: moving, Own: []string{"k2"}, Readers: everyone},
			Step{Wait, "k2", Settling, "every reader has key k2"}},
		{"the next key is everywhere", Input{Ring: moving, Own: []string{"k2"}, Readers: everyone, Seen: have, Every: quarter},
			Step{Sign, "k2", EveryoneHas, "every reader has it"}},

		{"a new key is asked for", Input{Ring: asked, Readers: everyone, Seen: sign, Every: quarter},
			Step{Publish, fresh, AskedFor, "the Secret is annotated with airflow-requeue.dev/rotate"}},
		{"a new key is asked for, and never due", Input{Ring: asked},
			Step{Publish, fresh, AskedFor, "the Secret is annotated with airflow-requeue.dev/rotate"}},

		{"an old key, and one does not answer", Input{Ring: old, Readers: append(late, silent("watcher-1", watcher)), Seen: sign},
			Step{Wait, "k1", ReaderSilent, "these do not say which keys they have: watcher-1 (connection refused)"}},
		{"an old key signs", Input{Ring: old, Readers: late, Seen: sign},
			Step{Wait, "k1", ReaderBehind, "these do not sign with key k1 yet: webhook-1"}},
		{"an old key signed a moment ago", Input{Ring: old, Readers: everyone, Seen: Seen{SignCurrent: ago(signFor - 1)}},
			Step{Wait, "k1", Settling, "every reader signs with key k1"}},
		{"an old key signed nobody knows when", Input{Ring: old, Readers: everyone},
			Step{Wait, "k1", Settling, "every reader signs with key k1"}},
		{"an old key has signed pods", Input{Ring: old, Readers: everyone, Seen: sign, InUse: []string{"k0"}, Every: quarter},
			Step{Wait, "k0", InUse, "pods are signed with k0"}},
		{"an old key has signed nothing that is left", Input{Ring: old, Readers: everyone, Seen: sign, Every: quarter},
			Step{Retire, "k0", Unused, "no pod is signed with it"}},
		{"of two old keys the one that nobody needs goes", Input{Seen: sign, Readers: everyone, InUse: []string{"k0"},
			Ring: Ring{Keys: []string{"k0", "k1", "k2"}, Current: "k1", Old: []string{"k0", "k2"}}},
			Step{Retire, "k2", Unused, "no pod is signed with it"}},

		{"a key is due", Input{Ring: alone, Every: quarter},
			Step{Publish, fresh, Due, "k1 signs since 2026-09-01T12:00:00Z"}},
		{"a key is not due yet", Input{Ring: alone, Every: quarter + 1},
			Step{Wait, "", NothingIsToDo, "k1 signs, since 2026-09-01"}},
		{"a key is never due", Input{Ring: alone},
			Step{Wait, "", NothingIsToDo, "k1 signs, since 2026-09-01"}},
		{"the name of a new key is not taken", Input{Every: quarter, Ring: Ring{Keys: []string{"k1", fresh}, Current: "k1", Since: ago(quarter)}},
			Step{Publish, "k20261130-120001", Due, "k1 signs since 2026-09-01T12:00:00Z"}},
	} {
		t.Run(c.name, func(t *testing.T) { assert.Equal(t, c.want, Decide(c.in, begun)) })
	}
}

func TestAWaitIsHeldUpByWhatShouldNotBe(t *testing.T) {
	held := map[Reason]bool{}
	for _, r := range []Reason{Trouble, Empty, Emptied, OthersHave, NoReaders, ReaderSilent, ReaderBehind, Settling, EveryoneHas, InUse, Unused, AskedFor, Due, NothingIsToDo} {
		held[r] = Step{Reason: r}.HeldUp()
		assert.False(t, Step{Action: Sign, Reason: r}.HeldUp())
	}
	assert.Equal(t, map[Reason]bool{Trouble: true, OthersHave: true, NoReaders: true, ReaderSilent: true, ReaderBehind: true, Empty: false, Emptied: false,
		Settling: false, EveryoneHas: false, InUse: false, Unused: false, AskedFor: false, Due: false, NothingIsToDo: false}, held)
}

func TestWhatIsSeenCountsFromWhenItIsSoWithoutABreak(t *testing.T) {
	ring := Ring{Keys: []string{"k1", "k2"}, Current: "k1", Next: "k2"}
	at := func(n int) time.Time { return begun.Add(time.Duration(n) * time.Second) }
	everyone, some := readers("k1", "k1", "k2"), append(readers("k1", "k1", "k2"), silent("webhook-1", webhook))
	seen := Seen{}.And(ring, everyone, at(0))
	assert.Equal(t, Seen{next: "k2", current: "k1", HaveNext: at(0), SignCurrent: at(0)}, seen)
	seen = seen.And(ring, everyone, at(1))
	assert.Equal(t, Seen{next: "k2", current: "k1", HaveNext: at(0), SignCurrent: at(0)}, seen)
	assert.Equal(t, Seen{next: "k2", current: "k1"}, seen.And(ring, some, at(2)))
	assert.Equal(t, Seen{next: "k2", current: "k1", HaveNext: at(3), SignCurrent: at(3)}, seen.And(ring, some, at(2)).And(ring, everyone, at(3)))
	another := Ring{Keys: []string{"k1", "k2", "k3"}, Current: "k2", Next: "k3"}
	assert.Equal(t, Seen{next: "k3", current: "k2", HaveNext: at(4), SignCurrent: at(4)}, seen.And(another, readers("k2", "k2", "k3"), at(4)),
		"another key begins anew")
	assert.Equal(t, Seen{next: "k2", current: "k1"}, seen.And(ring, nil, at(5)), "nobody is not everybody")
}
