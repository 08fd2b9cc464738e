package keyring

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

const (
	// kubeletLag is how old what a kubelet mounts may be.
	kubeletLag = 20 * time.Second
	// requestTimeout is how long a pod that was signed may be on its way to the API server's store.
	requestTimeout = time.Minute
)

// model is an installation at work: readers whose mounts lag, restart and fall silent, pods that are signed, stored later and
// end, several leaders that take turns, pause between decision and write, and people.
type model struct {
	t        *testing.T
	rand     *rand.Rand
	now      time.Time
	secrets  []version // the last is the Secret as it is
	oldest   int       // the first of them that a kubelet may still have
	readers  []*mounted
	pods     []signed
	leaders  []*leader
	done     map[Action]int
	every    time.Duration
	prompt   int           // percent: how quickly kubelets bring a change
	busy     int           // percent: how often pods are signed
	life     time.Duration // of pods, at most
	restless bool          // readers come and go all the time
	named    int
}

type version struct {
	since  time.Time
	secret *corev1.Secret
}

// mounted is a reader's process.
type mounted struct {
	name, component string
	keys            requeue.Keys // none while it waits for some
	silentUntil     time.Time
	stuckUntil      time.Time // its kubelet brings nothing
}

type signed struct {
	key           string
	stored, until time.Time
}

// leader is a process that takes itself for the leader.
type leader struct {
	reader *mounted
	seen   Seen
	write  func() // decided on, and not written yet
	at     time.Time
}

func newModel(t *testing.T, seed uint64) *model {
	m := &model{t: t, rand: rand.New(rand.NewPCG(seed, 0)), now: begun, every: time.Hour, done: map[Action]int{},
		prompt: []int{20, 100}[seed/2%2], busy: []int{100, 5}[seed/4%2], life: []time.Duration{10 * time.Minute, 10 * time.Second}[seed/8%2], restless: seed/16%2 == 1}
	m.write(secretOf("", nil))
	if seed%2 == 0 {
		m.write(secretOf("by-hand", []string{"by-hand"}))
	}
	for i := range 4 {
		m.join([]string{watcher, webhook}[i%2])
	}
	m.leaders = []*leader{{reader: m.readers[0]}}
	return m
}

func (m *model) secret() *corev1.Secret { return m.secrets[len(m.secrets)-1].secret }

// write stores the Secret. A key that leaves it must have signed nothing that is left.
func (m *model) write(secret *corev1.Secret) {
	secret.ResourceVersion = strconv.Itoa(len(m.secrets))
	m.secrets = append(m.secrets, version{m.now, secret})
	if len(secret.Data) == 0 {
		return // by people; and nothing is lost yet: what is mounted stays
	}
	for _, pod := range m.pods {
		if secret.Data[pod.key] == nil {
			require.FailNow(m.t, "a pod is signed with a key that is gone", pod.key)
		}
	}
}

// asSeen is the Secret as a kubelet may have it.
func (m *model) asSeen() *corev1.Secret {
	at := m.now.Add(-m.upTo(kubeletLag))
	for i, v := range slices.Backward(m.secrets) {
		if i == m.oldest || !v.since.After(at) {
			return v.secret
		}
	}
	return m.secret()
}

func (m *model) upTo(d time.Duration) time.Duration { return time.Duration(m.rand.Int64N(int64(d))) }
func (m *model) chance(percent int) bool            { return m.rand.IntN(100) < percent }

func (m *model) join(component string) {
	m.named++
	r := &mounted{name: fmt.Sprintf("%s-%d", component, m.named), component: component}
	m.mount(r)
	m.readers = append(m.readers, r)
}

// mount is what internal/keyfile makes of a mounted Secret: the last good keys stay.
func (m *model) mount(r *mounted) {
	if keys, err := requeue.ParseKeys(m.asSeen().Data); err == nil {
		r.keys = keys
	}
}

// sign signs a pod. Everybody who verifies anything must have the key.
func (m *model) sign(r *mounted) {
	if r.keys.Current == "" || !m.chance(m.busy) {
		return
	}
	for _, other := range m.readers {
		if len(other.keys.Secrets) > 0 && other.keys.Secrets[r.keys.Current] == nil {
			require.FailNow(m.t, "a reader signs with a key that another lacks", "%s, %s, %s", r.name, r.keys.Current, other.name)
		}
	}
	stored := m.now.Add(m.upTo(requestTimeout))
	m.pods = append(m.pods, signed{r.keys.Current, stored, stored.Add(m.upTo(m.life))})
}

// look is what a Keeper does: gather, decide, and write now or after a pause.
func (m *model) look(l *leader) {
	if l.write != nil {
		if !m.now.Before(l.at) {
			l.write()
			l.write = nil
		}
		return
	}
	secret := m.secret()
	in := Input{Ring: Read(secret), Own: slices.Sorted(maps.Keys(l.reader.keys.Secrets)), Every: m.every, Signed: len(m.pods) > 0}
	for _, r := range m.readers {
		said := Reader{Pod: r.name, Component: r.component, Held: heldOf(r.keys)}
		if m.now.Before(r.silentUntil) {
			said = silent(r.name, r.component)
		}
		in.Readers = append(in.Readers, said)
	}
	l.seen = l.seen.And(in.Ring, in.Readers, m.now)
	in.Seen = l.seen
	for _, pod := range m.pods {
		if !pod.stored.After(m.now) {
			in.InUse = append(in.InUse, pod.key)
		}
	}
	step := Decide(in, m.now)
	if step.Action == Wait {
		return
	}
	raw, err := patch(secret, in.Ring, step, l.reader.keys, m.now)
	require.NoError(m.t, err)
	l.at = m.now
	l.write = func() {
		if m.secret().ResourceVersion != secret.ResourceVersion {
			return // 409
		}
		m.done[step.Action]++
		if step.Action == Fill { // the last process that had keys has ended: what they signed is lost
			for _, r := range m.readers {
				require.Empty(m.t, r.keys.Secrets, "%s has keys", r.name)
			}
			m.pods = nil
		}
		m.write(merge(m.t, secret, raw))
	}
	if m.chance(10) {
		l.at = m.now.Add(m.upTo(5 * time.Minute))
		return
	}
	l.write()
	l.write = nil
}

// leave is the end of a reader's process; another begins.
func (m *model) leave(i int) {
	gone := m.readers[i]
	m.readers = slices.Delete(m.readers, i, i+1)
	m.join(gone.component)
	for _, l := range m.leaders {
		if l.reader == gone { // and with it all that it had seen
			*l = leader{reader: m.of(watcher)}
		}
	}
}

// of is a reader of a component.
func (m *model) of(component string) *mounted {
	for {
		if r := m.readers[m.rand.IntN(len(m.readers))]; r.component == component {
			return r
		}
	}
}

// happens is what comes between two looks; in a calm everything that was behind catches up.
func (m *model) happens(calm bool) {
	r := m.readers[m.rand.IntN(len(m.readers))]
	if calm {
		r.stuckUntil, r.silentUntil = time.Time{}, time.Time{}
	}
	if m.chance(m.prompt) && !m.now.Before(r.stuckUntil) {
		m.mount(r)
	}
	if calm {
		return
	}
	m.sign(r)
	if m.restless && m.chance(20) {
		m.leave(m.rand.IntN(len(m.readers)))
	}
	switch m.rand.IntN(200) {
	case 0:
		if len(m.secret().Data) > 0 {
			r.silentUntil = m.now.Add(m.upTo(10 * time.Minute))
		}
	case 1:
		r.stuckUntil = m.now.Add(m.upTo(10 * time.Minute))
	case 2, 3:
		m.leave(m.rand.IntN(len(m.readers)))
	case 4:
		m.leaders = append(m.leaders, &leader{reader: m.of(watcher)})
	case 5:
		m.leaders = m.leaders[max(0, len(m.leaders)-1):]
	case 6:
		asked := m.secret().DeepCopy()
		asked.Annotations[AnnotationRotate] = "now"
		m.write(asked)
	case 7:
		if m.chance(20) { // kubectl replace. Who is silent by then may have keys, and nobody can tell: see TestDecide
			m.write(secretOf("", nil))
			m.oldest = len(m.secrets) - 1 // or keys would come back that their last holder took with it
			for _, r := range m.readers {
				r.silentUntil = time.Time{}
			}
		}
	}
}

// TestAtNoTimeIsAnythingSignedThatSomebodyCanNotVerify plays random rotations, in which each write may be the last for long.
func TestAtNoTimeIsAnythingSignedThatSomebodyCanNotVerify(t *testing.T) {
	done := map[Action]int{}
	for seed := range uint64(200) {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			m := newModel(t, seed)
			for i := range 3000 {
				m.now = m.now.Add(m.upTo(5 * time.Second))
				m.pods = slices.DeleteFunc(m.pods, func(p signed) bool { return !p.until.After(m.now) })
				calm := i >= 2000
				if calm {
					m.every = 0
				}
				m.happens(calm)
				m.look(m.leaders[m.rand.IntN(len(m.leaders))])
			}
			ring := Read(m.secret())
			require.Empty(t, ring.Trouble)
			require.Empty(t, ring.Next, "in a calm a rotation ends")
			require.Empty(t, ring.Old)
			for action, n := range m.done {
				done[action] += n
			}
		})
	}
	t.Log(done)
	for _, action := range []Action{Fill, Restore, Publish, Sign, Retire} {
		require.Greater(t, done[action], 50, action.String())
	}
}
