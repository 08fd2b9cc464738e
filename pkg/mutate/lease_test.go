package mutate

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

const (
	maxAge       = 30 * time.Second
	releaseAfter = time.Minute
)

func noon() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC) }

// look is a look at the Lease some time after the one before.
type look struct {
	after  time.Duration
	record leaseRecord
}

// renewal is the Lease after its holder's n-th renewal. The holder's clock is years behind ours.
func renewal(n int) leaseRecord {
	return leaseRecord{holder: "watcher-1", ready: true, renewed: noon().AddDate(-5, 0, n)}
}

func notReady(r leaseRecord) leaseRecord { r.ready = false; return r }
func heldBy(holder string, r leaseRecord) leaseRecord {
	r.holder = holder
	return r
}

// repeat repeats a look, two seconds apart, until d has passed.
func repeat(d time.Duration, record leaseRecord) (looks []look) {
	for range d / pollInterval {
		looks = append(looks, look{pollInterval, record})
	}
	return looks
}

func TestLeadership(t *testing.T) {
	none := leaseRecord{}
	type verdict struct{ leads, ready, gone bool }
	for _, c := range []struct {
		name  string
		looks []look
		later time.Duration // since the last look
		want  verdict
	}{
		{"nothing was seen yet", nil, 0, verdict{}},
		{"the first look is no renewal", []look{{0, renewal(1)}}, 0, verdict{}},
		{"a renewal between two looks is one", []look{{0, renewal(1)}, {2 * time.Second, renewal(2)}}, 0, verdict{leads: true, ready: true}},
		{"a renewal is good for its time", []look{{0, renewal(1)}, {2 * time.Second, renewal(2)}}, maxAge, verdict{leads: true, ready: true}},
		{"and no longer", []look{{0, renewal(1)}, {2 * time.Second, renewal(2)}}, maxAge + 1, verdict{}},
		{"looks without a renewal do not prolong it", append([]look{{0, renewal(1)}, {2 * time.Second, renewal(2)}}, repeat(32*time.Second, renewal(2))...), 0, verdict{}},
		{"a leader that is not ready leads", []look{{0, renewal(1)}, {2 * time.Second, notReady(renewal(2))}}, 0, verdict{leads: true}},
		{"a mark that it is not ready counts at once", []look{{0, renewal(1)}, {2 * time.Second, renewal(2)}, {2 * time.Second, notReady(renewal(2))}}, 0, verdict{leads: true}},
		{"a mark is no renewal", []look{{0, notReady(renewal(1))}, {2 * time.Second, renewal(1)}}, 0, verdict{}},
		{"a lease that is given up ends it", []look{{0, renewal(1)}, {2 * time.Second, renewal(2)}, {2 * time.Second, heldBy("", renewal(3))}}, 0, verdict{}},
		{"a new holder is a renewal", []look{{0, renewal(1)}, {2 * time.Second, heldBy("watcher-2", renewal(1))}}, 0, verdict{leads: true, ready: true}},
		{"a lease that appears is one", []look{{0, none}, {2 * time.Second, renewal(1)}}, 0, verdict{leads: true, ready: true}},
		{"a lease that disappears ends it", []look{{0, renewal(1)}, {2 * time.Second, renewal(2)}, {2 * time.Second, none}}, 0, verdict{}},
		{"a clock that goes back renews all the same", []look{{0, renewal(2)}, {2 * time.Second, renewal(1)}}, 0, verdict{leads: true, ready: true}},
		{"what changed in a gap may be long past", []look{{0, renewal(1)}, {maxGap + 1, renewal(2)}}, 0, verdict{}},
		{"looks just close enough show a renewal", []look{{0, renewal(1)}, {maxGap, renewal(2)}}, 0, verdict{leads: true, ready: true}},

		{"a minute of looks without a renewal: gone", append([]look{{0, renewal(1)}}, repeat(releaseAfter, renewal(1))...), 0, verdict{gone: true}},
		{"a minute of looks without a lease: gone", append([]look{{0, none}}, repeat(releaseAfter, none)...), 0, verdict{gone: true}},
		{"a minute of looks at a lease that nobody holds: gone", append([]look{{0, heldBy("", renewal(1))}}, repeat(releaseAfter, heldBy("", renewal(2)))...), 0, verdict{gone: true}},
		{"less than a minute", append([]look{{0, none}}, repeat(releaseAfter-2*time.Second, none)...), 0, verdict{}},
		{"less than a minute of looks, and then none", append([]look{{0, none}}, repeat(releaseAfter-2*time.Second, none)...), time.Hour, verdict{}},
		{"a minute without a look proves nothing", []look{{0, none}, {releaseAfter, none}}, 0, verdict{}},
		{"a gap begins the minute again", append(append([]look{{0, none}}, repeat(58*time.Second, none)...), append([]look{{maxGap + 1, none}}, repeat(58*time.Second, none)...)...), 0, verdict{}},
		{"a renewal begins the minute again", append(append([]look{{0, renewal(1)}}, repeat(58*time.Second, renewal(1))...), append([]look{{2 * time.Second, renewal(2)}}, repeat(58*time.Second, renewal(2))...)...), 0, verdict{}},
		{"a leader that is not ready is not gone", append([]look{{0, notReady(renewal(0))}}, alternate(notReady)...), 0, verdict{leads: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, now := leadership{}, noon()
			for _, k := range c.looks {
				now = now.Add(k.after)
				l = l.observe(k.record, now)
			}
			now = now.Add(c.later)
			assert.Equal(t, c.want, verdict{l.leads(now, maxAge), l.ready(now, maxAge), l.gone(releaseAfter)})
		})
	}
}

// alternate is more than a minute of renewals.
func alternate(change func(leaseRecord) leaseRecord) (looks []look) {
	for n := range 40 {
		looks = append(looks, look{2 * time.Second, change(renewal(n + 1))})
	}
	return looks
}

func TestRecordOfALease(t *testing.T) {
	at := metav1.NewMicroTime(noon())
	assert.Equal(t, leaseRecord{}, recordOf(&coordinationv1.Lease{}))
	assert.Equal(t, leaseRecord{holder: "watcher-1", renewed: noon(), ready: true}, recordOf(&coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{requeue.LabelReady: "true"}},
		Spec:       coordinationv1.LeaseSpec{HolderIdentity: ptr.To("watcher-1"), RenewTime: &at},
	}))
	assert.Equal(t, leaseRecord{holder: "watcher-1"}, recordOf(&coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{requeue.LabelReady: "false"}},
		Spec:       coordinationv1.LeaseSpec{HolderIdentity: ptr.To("watcher-1")},
	}))
}
