package mutate

import (
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// maxGap is how far apart two observations may be for what lies between them to count as seen.
const maxGap = 15 * time.Second

// leaseRecord is what one look at the watcher's Lease shows; the zero value is a Lease that is not there.
type leaseRecord struct {
	holder  string
	renewed time.Time // by the holder's clock: only compared with itself
	ready   bool      // the holder can decide: its metadata database is readable
}

func recordOf(lease *coordinationv1.Lease) leaseRecord {
	r := leaseRecord{ready: lease.Labels[requeue.LabelReady] == "true"}
	if lease.Spec.HolderIdentity != nil {
		r.holder = *lease.Spec.HolderIdentity
	}
	if lease.Spec.RenewTime != nil {
		r.renewed = lease.Spec.RenewTime.Time
	}
	return r
}

// leadership is what was seen of the watcher's Lease. It is judged by renewals seen, on the clock of this process:
// times in the Lease are the leader's, and clocks differ.
type leadership struct {
	last       leaseRecord
	observed   time.Time // the last look; zero before the first
	renewed    time.Time // the last renewal seen; zero before the first
	leaderless time.Time // since when looks, none of them far apart, saw no renewal
}

// observe takes in a look at the Lease. Only a change between two looks close together is a renewal: what the first one
// shows, or one after a gap, may be long past.
func (l leadership) observe(r leaseRecord, now time.Time) leadership {
	contiguous := !l.observed.IsZero() && now.Sub(l.observed) <= maxGap
	renewal := contiguous && r.holder != "" && (r.holder != l.last.holder || !r.renewed.Equal(l.last.renewed))
	if renewal {
		l.renewed = now
	}
	if renewal || !contiguous {
		l.leaderless = now
	}
	l.last, l.observed = r, now
	return l
}

// leads reports whether a renewal was seen within maxAge.
func (l leadership) leads(now time.Time, maxAge time.Duration) bool {
	return l.last.holder != "" && !l.renewed.IsZero() && now.Sub(l.renewed) <= maxAge
}

// ready reports whether a watcher leads and can decide: pods may be held.
func (l leadership) ready(now time.Time, maxAge time.Duration) bool {
	return l.leads(now, maxAge) && l.last.ready
}

// gone reports whether looks over a time of d saw no renewal: holds are to be lifted. That nothing could be seen, because
// the API server is down, proves nothing.
func (l leadership) gone(d time.Duration) bool {
	return !l.observed.IsZero() && l.observed.Sub(l.leaderless) >= d
}
