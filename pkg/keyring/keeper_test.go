package keyring

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/airflow-requeue/airflow-requeue/internal/programs"
	"github.com/airflow-requeue/airflow-requeue/internal/world"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

var shared = programs.Shared{Parallel: 4}

func TestMain(m *testing.M) { os.Exit(shared.Main(m)) }

// place is a namespace with a Secret, readers, and a keeper whose clock stands still.
type place struct {
	t      *testing.T
	site   Site
	clock  *clocktesting.FakeClock
	log    bytes.Buffer
	own    requeue.Keys
	signed []string             // keys that pods are signed with
	counts *prometheus.Registry // of the last keeper
}

func newPlace(t *testing.T) *place {
	t.Helper()
	t.Parallel()
	client, err := kubernetes.NewForConfig(shared.Servers.Config())
	require.NoError(t, err)
	return &place{t: t, clock: clocktesting.NewFakeClock(begun),
		site: Site{Client: client, Installation: "blue", Namespace: world.Namespace(t, client), Secret: "keys"}}
}

func (p *place) keeper() *Keeper {
	p.t.Helper()
	p.counts = prometheus.NewRegistry()
	k, err := NewKeeper(Options{Site: p.site, Own: func() requeue.Keys { return p.own }, Clock: p.clock, Log: slog.New(slog.NewTextHandler(&p.log, nil)),
		Registry: p.counts, Signed: func(_ context.Context, want func(string) bool) (bool, error) {
			for _, key := range p.signed {
				if want(key) {
					return true, nil
				}
			}
			return false, nil
		}})
	require.NoError(p.t, err)
	return k
}

// value is that of a metric, or the sum of its samples.
func value(t *testing.T, from prometheus.Gatherer, name string) float64 {
	t.Helper()
	families, err := from.Gather()
	require.NoError(t, err)
	sum := 0.0
	for _, family := range families {
		if family.GetName() == name {
			for _, metric := range family.GetMetric() {
				sum += metric.GetGauge().GetValue() + metric.GetCounter().GetValue()
			}
		}
	}
	return sum
}

// store creates the Secret.
func (p *place) store(secret *corev1.Secret) {
	p.t.Helper()
	secret.ObjectMeta = metav1.ObjectMeta{Name: p.site.Secret, Annotations: secret.Annotations, OwnerReferences: secret.OwnerReferences}
	_, err := p.site.Client.CoreV1().Secrets(p.site.Namespace).Create(p.t.Context(), secret, metav1.CreateOptions{})
	require.NoError(p.t, err)
}

func (p *place) secret() *corev1.Secret {
	p.t.Helper()
	secret, err := p.site.Get(p.t.Context())
	require.NoError(p.t, err)
	return secret
}

// join creates a pod of a component that answers by a handler; a nil one leaves it without an address.
func (p *place) join(name, component string, answer http.Handler, change ...func(*corev1.Pod)) {
	p.t.Helper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app.kubernetes.io/instance": "blue", "app.kubernetes.io/component": component}},
		Spec:       corev1.PodSpec{NodeName: "node-a", Containers: []corev1.Container{{Name: component, Image: component}}}}
	status := corev1.PodStatus{Phase: corev1.PodRunning}
	if answer != nil {
		server := httptest.NewServer(answer)
		p.t.Cleanup(server.Close)
		host, port, err := net.SplitHostPort(server.Listener.Addr().String())
		require.NoError(p.t, err)
		number, err := strconv.ParseInt(port, 10, 32)
		require.NoError(p.t, err)
		pod.Spec.Containers[0].Ports = []corev1.ContainerPort{{Name: "other", ContainerPort: 1}, {Name: "metrics", ContainerPort: int32(number)}}
		status.PodIP, status.PodIPs = host, []corev1.PodIP{{IP: host}}
	}
	pod.Status = status
	for _, c := range change {
		c(pod)
	}
	status = pod.Status
	pods := p.site.Client.CoreV1().Pods(p.site.Namespace)
	created, err := pods.Create(p.t.Context(), pod, metav1.CreateOptions{})
	require.NoError(p.t, err)
	created.Status = status
	_, err = pods.UpdateStatus(p.t.Context(), created, metav1.UpdateOptions{})
	require.NoError(p.t, err)
}

func keysOf(current string, ids ...string) requeue.Keys {
	keys := requeue.Keys{Current: current, Secrets: map[string][]byte{}}
	for _, id := range ids {
		keys.Secrets[id] = content(id)
	}
	return keys
}

func holding(current string, ids ...string) http.Handler {
	return Handler(func() requeue.Keys { return keysOf(current, ids...) })
}

func TestManyThatFillAtOnceMakeOneKey(t *testing.T) {
	p := newPlace(t)
	p.store(&corev1.Secret{})
	var filling sync.WaitGroup
	var counts []*prometheus.Registry
	for range 8 {
		k := p.keeper()
		k.Log = slog.New(slog.DiscardHandler)
		counts = append(counts, p.counts)
		filling.Go(func() { assert.NoError(t, k.Fill(t.Context())) })
	}
	filling.Wait()
	ring := Read(p.secret())
	assert.Equal(t, Ring{Keys: []string{fresh}, Current: fresh, Since: begun}, ring)
	total := 0.0
	for _, c := range counts {
		total += value(t, c, "airflow_requeue_signing_key_steps_total")
	}
	assert.InDelta(t, 1, total, 0)
}

func TestFillTouchesNoKeyThatIsThere(t *testing.T) {
	p := newPlace(t)
	p.store(secretOf("k1", []string{"k1"}, AnnotationRotate, "now"))
	before := p.secret()
	require.NoError(t, p.keeper().Fill(t.Context()))
	assert.Equal(t, before, p.secret())
}

func TestTheLeaderRotatesAndPutsBackWhatWasTakenOut(t *testing.T) {
	p := newPlace(t)
	p.store(secretOf("k1", []string{"k1"}, AnnotationRotate, "now"))
	everyone := keysOf("k1", "k1")
	answer := Handler(func() requeue.Keys { return everyone })
	p.join("watcher-0", watcher, answer)
	p.join("webhook-0", webhook, answer)
	k := p.keeper()
	take := func() Step {
		step, err := k.step(t.Context(), func(a Action) bool { return a != Wait })
		require.NoError(t, err)
		return step
	}
	catchUp := func() {
		keys, err := requeue.ParseKeys(p.secret().Data)
		require.NoError(t, err)
		p.own, everyone = keys, keys
	}
	catchUp()
	assert.Equal(t, Publish, take().Action)
	assert.Equal(t, ReaderBehind, take().Reason)
	catchUp()
	assert.Equal(t, Settling, take().Reason)
	p.clock.Step(haveFor)
	assert.Equal(t, Sign, take().Action)
	catchUp()
	p.signed = []string{"k1"}
	assert.Equal(t, Settling, take().Reason)
	p.clock.Step(signFor)
	assert.Equal(t, InUse, take().Reason)
	p.signed = []string{fresh}
	assert.Equal(t, Retire, take().Action)
	catchUp()
	assert.Equal(t, NothingIsToDo, take().Reason)
	assert.Equal(t, Ring{Keys: []string{fresh}, Current: fresh, Since: begun.Add(haveFor)}, Read(p.secret()))

	emptied := p.secret()
	emptied.Data = nil
	_, err := p.site.Client.CoreV1().Secrets(p.site.Namespace).Update(t.Context(), emptied, metav1.UpdateOptions{})
	require.NoError(t, err)
	starting := p.keeper()
	own := p.own
	p.own = requeue.Keys{}
	require.NoError(t, starting.Fill(t.Context()))
	assert.Empty(t, p.secret().Data, "who starts waits for the leader, which has keys")
	p.own = own
	assert.Equal(t, Restore, take().Action)
	keys, err := requeue.ParseKeys(p.secret().Data)
	require.NoError(t, err)
	assert.Equal(t, own, keys)
	for _, content := range own.Secrets {
		assert.NotContains(t, p.log.String(), string(content))
	}
}

func TestPodsAreLookedAtForAnOldKeyOnceItMayGoAndThenOnceAMinute(t *testing.T) {
	p := newPlace(t)
	p.store(secretOf("k2", []string{"k1", "k2"}, AnnotationOld, "k1"))
	p.own, p.signed = keysOf("k2", "k1", "k2"), []string{"k1"}
	p.join("watcher-0", watcher, holding("k2", "k1", "k2"))
	p.join("webhook-0", webhook, holding("k2", "k1", "k2"))
	k := p.keeper()
	signed, looked := k.Signed, 0
	k.Signed = func(ctx context.Context, want func(string) bool) (bool, error) {
		looked++
		return signed(ctx, want)
	}
	look := func() (Reason, time.Duration) {
		step, err := k.step(t.Context(), func(a Action) bool { return a != Wait })
		require.NoError(t, err)
		return step.Reason, pause(step, err)
	}
	reason, after := look()
	assert.Equal(t, Settling, reason)
	assert.Equal(t, 5*time.Second, after)
	p.clock.Step(signFor - 1)
	reason, _ = look()
	assert.Equal(t, Settling, reason)
	assert.Zero(t, looked)
	p.clock.Step(1)
	reason, after = look()
	assert.Equal(t, InUse, reason)
	assert.Equal(t, time.Minute, after)
	assert.Equal(t, 1, looked)
	p.signed = nil
	reason, after = look()
	assert.Equal(t, Unused, reason)
	assert.Equal(t, 5*time.Second, after)
	reason, after = look()
	assert.Equal(t, NothingIsToDo, reason)
	assert.Equal(t, 30*time.Second, after)
}

func TestReadersAreAskedAndNobodyElse(t *testing.T) {
	p := newPlace(t)
	elsewhere := httptest.NewServer(holding("k1", "k1"))
	t.Cleanup(elsewhere.Close)
	says := func(body string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, body) })
	}
	p.join("a-watcher", watcher, holding("k1", "k1", "k2"))
	p.join("b-webhook", webhook, holding(""))
	p.join("c-led-on", webhook, http.RedirectHandler(elsewhere.URL+Path, http.StatusFound))
	p.join("d-odd", webhook, says("s3cret"))
	p.join("e-long", webhook, says(`{"keys":["`+strings.Repeat("x", maxAnswer)+`"]}`))
	p.join("f-elsewhere", webhook, http.NotFoundHandler())
	p.join("g-starting", watcher, nil)
	p.join("h-gone", watcher, holding("k1", "k1"), func(pod *corev1.Pod) { pod.Spec.Containers[0].Ports[1].ContainerPort = 1 })
	p.join("i-failed", watcher, nil, func(pod *corev1.Pod) { pod.Status.Phase = corev1.PodFailed })
	p.join("j-done", watcher, nil, func(pod *corev1.Pod) { pod.Status.Phase = corev1.PodSucceeded })
	p.join("k-unbound", watcher, nil, func(pod *corev1.Pod) { pod.Spec.NodeName = "" })
	p.join("l-release", "release", nil)
	p.join("n-wordy", webhook, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Said", strings.Repeat("x", 2*maxAnswer))
		holding("k1", "k1").ServeHTTP(w, r)
	}))
	p.join("o-foreign", webhook, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		connection, _, err := http.NewResponseController(w).Hijack()
		if assert.NoError(t, err) {
			fmt.Fprint(connection, "s3cret\r\n\r\n")
			assert.NoError(t, connection.Close())
		}
	}))
	p.join("m-another", watcher, nil, func(pod *corev1.Pod) { pod.Labels["app.kubernetes.io/instance"] = "green" })

	readers, err := p.site.Readers(t.Context())

	require.NoError(t, err)
	said := map[string]string{}
	for _, r := range readers {
		said[r.Pod] = r.Silent
	}
	assert.Equal(t, map[string]string{"a-watcher": "", "b-webhook": "", "c-led-on": "HTTP status 302", "d-odd": "an answer that can't be read",
		"e-long": "an answer that can't be read", "f-elsewhere": "HTTP status 404", "g-starting": "no address yet, or no port named metrics",
		"h-gone": "dial tcp 127.0.0.1:1: connect: connection refused", "n-wordy": "an answer that can't be read", "o-foreign": "an answer that can't be read"}, said)
	assert.Equal(t, []Reader{{Pod: "a-watcher", Component: watcher, Held: Held{Keys: []string{"k1", "k2"}, Signs: "k1"}},
		{Pod: "b-webhook", Component: webhook, Held: Held{Keys: []string{}}}}, readers[:2])
}

func TestFewReadersAreAskedAtTheSameTime(t *testing.T) {
	p := newPlace(t)
	var mu sync.Mutex
	var asked, now, most int
	enough := make(chan struct{}) // are asked for more to come, if more may
	answer := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		asked, now = asked+1, now+1
		most = max(most, now)
		if asked == askedAtOnce {
			close(enough)
		}
		mu.Unlock()
		<-enough
		mu.Lock()
		now-- // before the answer, upon which the next is asked
		mu.Unlock()
		holding("k1", "k1").ServeHTTP(w, r)
	})
	const many = 3 * askedAtOnce
	for i := range many {
		p.join(fmt.Sprintf("watcher-%d", i), watcher, answer)
	}

	readers, err := p.site.Readers(t.Context())

	require.NoError(t, err)
	assert.Len(t, readers, many)
	assert.Equal(t, many, asked)
	assert.LessOrEqual(t, most, askedAtOnce)
}

func TestWhatHoldsTheKeysUpIsSaidOnce(t *testing.T) {
	p := newPlace(t)
	k := p.keeper()
	ctx := t.Context()
	look := func() {
		_, err := k.step(ctx, func(a Action) bool { return a != Wait })
		k.complain(ctx, err)
	}
	lines := func() []string {
		defer p.log.Reset()
		return strings.Split(strings.TrimSpace(p.log.String()), "\n")
	}
	heldUp := func() float64 { return value(t, p.counts, "airflow_requeue_signing_keys_held_up") }
	look()
	look()
	said := lines()
	require.Len(t, said, 1)
	assert.Contains(t, said[0], `level=WARN msg="looking after the signing keys failed, trying again" error="reading Secret `+p.site.Namespace+`/keys: secrets \"keys\" not found"`)

	p.own = keysOf("k1", "k1", "k2")
	p.store(secretOf("k1", []string{"k1", "k2"}, AnnotationNext, "k2"))
	p.join("watcher-0", watcher, holding("k1", "k1", "k2"))
	p.join("webhook-0", webhook, holding("k1", "k1"))
	look()
	p.clock.Step(patience - 1)
	look()
	assert.Equal(t, []string{""}, lines(), "a kubelet has its time")
	assert.Zero(t, heldUp())
	p.clock.Step(1)
	look()
	look()
	said = lines()
	require.Len(t, said, 1)
	assert.Contains(t, said[0], `level=WARN msg="the signing keys are held up" secret=keys key=k2 reason=ReaderBehind message="these do not have key k2 yet: webhook-0"`)
	assert.InDelta(t, 1, heldUp(), 0)

	secret := p.secret()
	delete(secret.Data, "k2")
	_, err := p.site.Client.CoreV1().Secrets(p.site.Namespace).Update(ctx, secret, metav1.UpdateOptions{})
	require.NoError(t, err)
	look()
	look()
	said = lines()
	require.Len(t, said, 2)
	assert.Contains(t, said[0], "the signing keys are no longer held up")
	assert.Contains(t, said[1], "reason=Trouble message=\"somebody has taken out the key that is to sign next")
	assert.InDelta(t, 1, heldUp(), 0)

	secret = p.secret()
	delete(secret.Annotations, AnnotationNext)
	_, err = p.site.Client.CoreV1().Secrets(p.site.Namespace).Update(ctx, secret, metav1.UpdateOptions{})
	require.NoError(t, err)
	look()
	assert.Contains(t, p.log.String(), "the signing keys are no longer held up")
	assert.Zero(t, heldUp())
}
