// Package keyring looks after the Secret with the signing keys: it fills an empty one, and rotates its keys without a restart and
// without a pod whose seal somebody can't verify. What comes next is decided from what the Secret itself says, so that it may be
// left to another process at any step.
package keyring

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// What is noted on the Secret stands in its annotations: each entry of its data but `current` is a key to whoever mounts it.
const (
	prefix = "airflow-requeue.dev/"

	// AnnotationNext is the id of the key that signs once every reader has it.
	AnnotationNext = prefix + "signs-next"
	// AnnotationOld are the ids of the keys that have signed, with spaces between them: each goes once nothing is signed with it.
	AnnotationOld = prefix + "signed-before"
	// AnnotationSince is the id of the key that signs, a space, and since when (RFC 3339).
	AnnotationSince = prefix + "signs-since"
	// AnnotationRotate, whatever its value, asks for a new key now.
	AnnotationRotate = prefix + "rotate"
)

// Ring is what the Secret says of its keys, which are named here by their ids alone.
type Ring struct {
	Keys    []string  // all, sorted; none in an empty Secret
	Current string    // signs
	Next    string    // signs once every reader has it; empty where no rotation is under way
	Old     []string  // have signed, sorted
	Since   time.Time // Current signs since then at the latest
	Asked   bool      // for a new key
	Trouble string    // why the Secret is to be left alone; empty where it is not
}

// Read reads a Secret. It quotes nothing of its data but ids.
func Read(secret *corev1.Secret) Ring {
	ring := Ring{Asked: secret.Annotations[AnnotationRotate] != ""}
	if len(secret.OwnerReferences) > 0 {
		owner := secret.OwnerReferences[0]
		ring.Trouble = fmt.Sprintf("it belongs to %s %s, which would undo what is done to it: set --signing-keys-secret to nothing", owner.Kind, owner.Name)
		return ring
	}
	if secret.Immutable != nil && *secret.Immutable {
		ring.Trouble = "it is immutable"
		return ring
	}
	if len(secret.Data) == 0 {
		return ring
	}
	keys, err := requeue.ParseKeys(secret.Data)
	if err != nil {
		ring.Trouble = err.Error()
		return ring
	}
	ring.Keys, ring.Current = slices.Sorted(maps.Keys(keys.Secrets)), keys.Current
	ring.Since = secret.CreationTimestamp.Time
	if id, since, ok := strings.Cut(secret.Annotations[AnnotationSince], " "); ok && id == ring.Current {
		if at, err := time.Parse(time.RFC3339, since); err == nil {
			ring.Since = at
		}
	}
	for _, id := range strings.Fields(secret.Annotations[AnnotationOld]) {
		if slices.Contains(ring.Keys, id) && id != ring.Current {
			ring.Old = append(ring.Old, id)
		}
	}
	slices.Sort(ring.Old)
	ring.Old = slices.Compact(ring.Old)
	if next := secret.Annotations[AnnotationNext]; next != "" && next != ring.Current {
		if !slices.Contains(ring.Keys, next) {
			ring.Trouble = "somebody has taken out the key that is to sign next: take the annotation " + AnnotationNext + " off as well"
		}
		ring.Next = next
	}
	return ring
}

// Moving reports whether a next step depends on what readers say.
func (r Ring) Moving() bool {
	return r.Trouble == "" && (len(r.Keys) == 0 || r.Next != "" || len(r.Old) > 0)
}

// String says how the keys stand, for people.
func (r Ring) String() string {
	switch {
	case r.Trouble != "":
		return r.Trouble
	case len(r.Keys) == 0:
		return "no key yet"
	}
	said := fmt.Sprintf("%s signs, since %s", r.Current, r.Since.UTC().Format(time.DateOnly))
	if r.Next != "" {
		said += "; " + r.Next + " is to sign next"
	}
	if len(r.Old) > 0 {
		said += "; to be retired: " + strings.Join(r.Old, ", ")
	}
	return said
}
