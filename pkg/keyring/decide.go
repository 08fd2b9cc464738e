package keyring

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Action is one write of the Secret. Each of them may be the last for long: whoever comes next goes on from there.
type Action int

// The actions.
const (
	Wait    Action = iota // the zero value, the harmless one
	Fill                  // an empty Secret gets its first key
	Restore               // a Secret that was emptied gets back what is mounted here
	Publish               // a new key, which does not sign yet
	Sign                  // the next key signs
	Retire                // a key that signed before is deleted
)

func (a Action) String() string {
	return []string{"wait", "fill", "restore", "publish", "sign", "retire"}[a]
}

// Reason is why a step was chosen.
type Reason string

// The reasons.
const (
	Trouble       Reason = "Trouble"       // the Secret is not as it should be, or not ours to change
	Empty         Reason = "Empty"         // there is no key, and nobody has one
	Emptied       Reason = "Emptied"       // there is no key, but this process has some
	OthersHave    Reason = "OthersHave"    // there is no key, but others have some, or may: the leader puts them back
	NoReaders     Reason = "NoReaders"     // readers are not found
	ReaderSilent  Reason = "ReaderSilent"  // a reader does not say what it has
	ReaderBehind  Reason = "ReaderBehind"  // a reader does not have, or use, a key yet
	Settling      Reason = "Settling"      // all is well, but not for long enough
	EveryoneHas   Reason = "EveryoneHas"   // every reader has the next key
	InUse         Reason = "InUse"         // pods are signed with it
	Unused        Reason = "Unused"        // no pod is
	AskedFor      Reason = "AskedFor"      // by the annotation
	Due           Reason = "Due"           // by its age
	NothingIsToDo Reason = "NothingIsToDo" // until then
)

const (
	// haveFor is how long every reader must have had a key before it signs: for kubelets that start a reader with what they
	// saw of the Secret a moment ago.
	haveFor = 30 * time.Second
	// signFor is how long every reader must have signed with a key before what was signed with others is looked for: a pod
	// may be on its way to the API server's store, for a minute at most (its --request-timeout).
	signFor = 90 * time.Second
)

// Input is all that is known.
type Input struct {
	Ring    Ring
	Own     []string // ids of the keys that this process has
	Readers []Reader
	Seen    Seen
	InUse   []string      // of Ring.Old: ids that a pod's signature names; looked for after the readers were asked
	Signed  bool          // with an empty Secret: a pod is signed with whatever key
	Every   time.Duration // how long a key signs; 0: until somebody asks for another
}

// Step is what comes next.
type Step struct {
	Action  Action
	Key     string // the id of the key that is made, signs, or goes
	Reason  Reason
	Message string // for people
}

// HeldUp reports whether a wait is for something that should not be.
func (s Step) HeldUp() bool {
	return s.Action == Wait && slices.Contains([]Reason{Trouble, OthersHave, NoReaders, ReaderSilent, ReaderBehind}, s.Reason)
}

// Decide says what comes next. It is a pure function of its arguments; the first case that matches wins. In doubt it waits: a key
// too many does no harm.
func Decide(in Input, now time.Time) Step {
	ring := in.Ring
	switch {
	case ring.Trouble != "":
		return Step{Reason: Trouble, Message: ring.Trouble}
	case len(ring.Keys) == 0:
		return empty(in, now)
	case ring.Next != "":
		return sign(in, now)
	case ring.Asked:
		return Step{Publish, newID(ring.Keys, now), AskedFor, "the Secret is annotated with " + AnnotationRotate}
	case len(ring.Old) > 0:
		return retire(in, now)
	case in.Every > 0 && now.Sub(ring.Since) >= in.Every:
		return Step{Publish, newID(ring.Keys, now), Due, fmt.Sprintf("%s signs since %s", ring.Current, ring.Since.UTC().Format(time.RFC3339))}
	}
	return Step{Reason: NothingIsToDo, Message: ring.String()}
}

// empty is for a Secret as the manifests make it, or as somebody has left it who replaced it by what they say. Keys that are
// in use are never replaced by a first one: others would not have it, and what they signed would be worth nothing.
func empty(in Input, now time.Time) Step {
	if len(in.Own) > 0 {
		return Step{Restore, "", Emptied, "the Secret was emptied: what is mounted here is put back"}
	}
	for _, r := range in.Readers {
		switch {
		case len(r.Keys) > 0:
			return Step{Reason: OthersHave, Message: "the Secret was emptied, but " + r.Pod + " has keys: the leader puts its own back"}
		case r.Silent != "" && in.Signed:
			return Step{Reason: OthersHave, Message: "the Secret was emptied, since pods are signed, and " + r.Pod + " may have keys (" + r.Silent + ")"}
		}
	}
	return Step{Fill, newID(nil, now), Empty, "the first key"}
}

func sign(in Input, now time.Time) Step {
	next := in.Ring.Next
	if reason, message := in.Ring.WaitsFor(in.Readers); reason != "" {
		return Step{Key: next, Reason: reason, Message: message}
	}
	switch {
	case !slices.Contains(in.Own, next):
		return Step{Key: next, Reason: ReaderBehind, Message: "this process does not have key " + next + " yet"}
	case in.Seen.HaveNext.IsZero() || now.Sub(in.Seen.HaveNext) < haveFor:
		return Step{Key: next, Reason: Settling, Message: "every reader has key " + next}
	}
	return Step{Sign, next, EveryoneHas, "every reader has it"}
}

func retire(in Input, now time.Time) Step {
	current := in.Ring.Current
	if reason, message := in.Ring.WaitsFor(in.Readers); reason != "" {
		return Step{Key: current, Reason: reason, Message: message}
	}
	if in.Seen.SignCurrent.IsZero() || now.Sub(in.Seen.SignCurrent) < signFor {
		return Step{Key: current, Reason: Settling, Message: "every reader signs with key " + current}
	}
	for _, old := range in.Ring.Old {
		if !slices.Contains(in.InUse, old) {
			return Step{Retire, old, Unused, "no pod is signed with it"}
		}
	}
	return Step{Key: in.Ring.Old[0], Reason: InUse, Message: "pods are signed with " + strings.Join(in.Ring.Old, ", ")}
}

// newID is an id by the time that no key has.
func newID(taken []string, now time.Time) string {
	for at := now.UTC(); ; at = at.Add(time.Second) {
		if id := at.Format("k20060102-150405"); !slices.Contains(taken, id) {
			return id
		}
	}
}
