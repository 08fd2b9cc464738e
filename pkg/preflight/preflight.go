// Package preflight looks at all that an installation needs to do its work, and says what is wrong and what to do about it. It
// changes nothing.
package preflight

import (
	"context"
	"fmt"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/clock"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
	"github.com/airflow-requeue/airflow-requeue/pkg/tidb"
	"github.com/airflow-requeue/airflow-requeue/pkg/watcher"
)

// State is how a check came out.
type State string

// The states.
const (
	OK   State = "ok"
	Warn State = "warn" // worth a look; or it can't be told
	Fail State = "FAIL"
)

// Finding is what one check has seen.
type Finding struct {
	Check string `json:"check"`
	State State  `json:"state"`
	Seen  string `json:"seen"`
	ToDo  string `json:"todo,omitempty"` // empty where it is OK, or where another finding's is enough
}

func ok(format string, args ...any) Finding {
	return Finding{State: OK, Seen: fmt.Sprintf(format, args...)}
}

func warn(toDo, format string, args ...any) Finding {
	return Finding{State: Warn, Seen: fmt.Sprintf(format, args...), ToDo: toDo}
}

// untold is what can't be told because the API server answers with an error.
func (c *checker) untold(err error) Finding {
	if c.lacks && apierrors.IsForbidden(err) {
		return warn("", "can't be told without the rights that are missing")
	}
	return warn("see whether the API server is well, and try again", "can't be told: %v", err)
}

func fail(toDo, format string, args ...any) Finding {
	return Finding{State: Fail, Seen: fmt.Sprintf(format, args...), ToDo: toDo}
}

// Options say which installation is looked at: the watcher's own flags.
type Options struct {
	Installation string
	Namespaces   []string
	Shards       int                  // that share the namespaces; 0 is 1
	Lease        watcher.LeaseOptions // Name is that of the only shard
	Policy       requeue.Policy
	Database     tidb.Source
	Keys         func() (requeue.Keys, error)
	KeysSecret   string // the Secret that the watcher looks after; empty where somebody else brings the keys
	Clock        clock.Clock

	// Starting is for a watcher that is about to start: what it can do its work without fails no more, it warns. The webhook may be
	// registered later than the watcher starts, and a watcher must be able to start, and settle what is held, when the
	// webhook's configuration was deleted in an emergency.
	Starting bool
}

func (o Options) shards() int { return max(o.Shards, 1) }

// lookTimeout bounds one check.
const lookTimeout = 15 * time.Second

type checker struct {
	Options

	lacks  bool // rights are missing
	client kubernetes.Interface
	user   string                                   // who asks the API server, where that can be told
	hook   *admissionregistrationv1.MutatingWebhook // once it is found
	leases map[int]*coordinationv1.Lease            // of the shards, once they are found, and fresh
	read   []corev1.Pod                             // the worker pods, once they are read
}

// Run makes all checks, one after another. Where the API server does not answer, what depends on it is left out.
func Run(ctx context.Context, client kubernetes.Interface, o Options) []Finding {
	c := &checker{Options: o, client: client, leases: map[int]*coordinationv1.Lease{}}
	var all []Finding
	look := func(name string, needed bool, check func(context.Context) Finding) State {
		ctx, cancel := context.WithTimeout(ctx, lookTimeout)
		defer cancel()
		found := check(ctx)
		state := found.State
		if found.Check = name; state == Fail && o.Starting && !needed {
			found.State = Warn
		}
		all = append(all, found)
		return state
	}
	look("signing keys", true, c.signingKeys)
	look("database", true, c.database)
	if look("API server", true, c.server) == Fail {
		return all
	}
	look("rights", true, c.rights)
	if c.KeysSecret != "" {
		look("key rotation", false, c.rotation)
	}
	if look("webhook", false, c.webhook) != Fail {
		if c.hook != nil {
			look("webhook's CA", false, c.authority)
		}
		look("webhook answers", false, c.answers)
	}
	for shard := range c.shards() {
		look(c.leaderOf(shard), false, func(ctx context.Context) Finding { return c.leader(ctx, shard) })
	}
	look("held pods", false, c.held)
	look("worker pods", false, c.airflow)
	look("Airflow's requeue", false, c.airflowsOwn)
	return all
}
