package outages

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/airflow-requeue/airflow-requeue/internal/programs"
	"github.com/airflow-requeue/airflow-requeue/internal/world"
	"github.com/airflow-requeue/airflow-requeue/pkg/keyring"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

const signingKeys = "airflow-requeue-signing-keys"

// home is the namespace of an installation's own pods, apart from Airflow's: its Secret, its Lease and those who read keys.
type home struct {
	*site
	namespace string
	members   []*member
}

// member is a process of the installation, the pod that it runs in, and the keys that are mounted there.
type member struct {
	*process
	pod   string
	keys  string // the folder
	mount *programs.Mount
}

// newHome has the Secret as the manifests make it.
func newHome(s *site) *home {
	s.t.Helper()
	h := &home{site: s, namespace: world.Namespace(s.t, s.Client)}
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: signingKeys}}
	_, err := s.Client.CoreV1().Secrets(h.namespace).Create(s.t.Context(), secret, metav1.CreateOptions{})
	require.NoError(s.t, err)
	return h
}

// watcherFlags are those of a watcher that looks after the keys.
func (h *home) watcherFlags() []string {
	return slices.Concat(h.WatcherFlags(h.watcherConfig()), programs.Steady(), []string{"--signing-keys-secret=" + signingKeys, "--replaced-pod-ttl=10s"})
}

// start runs a program as a pod of the installation, to which a kubelet brings changed keys every so often.
func (h *home) start(component, pod string, every time.Duration, flags []string) *member {
	h.t.Helper()
	m := &member{pod: pod, keys: h.t.TempDir()}
	m.mount = programs.MountSecret(h.t, h.Client, h.namespace, signingKeys, m.keys, every)
	m.process = start(h.t, component, append(flags, "--signing-keys-dir="+m.keys, "--lease-namespace="+h.namespace)...)
	host, port, err := net.SplitHostPort(m.metrics)
	require.NoError(h.t, err)
	number, err := strconv.ParseInt(port, 10, 32)
	require.NoError(h.t, err)
	pods := h.Client.CoreV1().Pods(h.namespace)
	running, err := pods.Create(h.t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: pod, Labels: map[string]string{"app.kubernetes.io/instance": world.Installation, "app.kubernetes.io/component": component}},
		Spec: corev1.PodSpec{NodeName: "node-a", Containers: []corev1.Container{{Name: component, Image: component,
			Ports: []corev1.ContainerPort{{Name: "metrics", ContainerPort: int32(number)}}}}}}, metav1.CreateOptions{})
	require.NoError(h.t, err)
	running.Status.Phase, running.Status.PodIP, running.Status.PodIPs = corev1.PodRunning, host, []corev1.PodIP{{IP: host}}
	_, err = pods.UpdateStatus(h.t.Context(), running, metav1.UpdateOptions{})
	require.NoError(h.t, err)
	h.members = append(h.members, m)
	return m
}

func (h *home) secret() *corev1.Secret {
	h.t.Helper()
	secret, err := h.Client.CoreV1().Secrets(h.namespace).Get(h.t.Context(), signingKeys, metav1.GetOptions{})
	require.NoError(h.t, err)
	return secret
}

// ring is what the Secret says of its keys.
func (h *home) ring() keyring.Ring { return keyring.Read(h.secret()) }

// held is what a member says of its keys; nothing while it does not answer.
func (m *member) held() (held keyring.Held) {
	response, err := http.Get("http://" + m.metrics + keyring.Path)
	if err != nil {
		return held
	}
	defer func() { _ = response.Body.Close() }()
	_ = json.NewDecoder(response.Body).Decode(&held)
	return held
}

// everybody reports whether each member but those named is as wanted.
func (h *home) everybody(want func(keyring.Held) bool, but ...*member) bool {
	return !slices.ContainsFunc(h.members, func(m *member) bool { return !slices.Contains(but, m) && !want(m.held()) })
}

// check is what the watcher's own check says of the rotation.
func (h *home) check(m *member) string {
	h.t.Helper()
	flags := append(h.watcherFlags(), "--signing-keys-dir="+m.keys, "--lease-namespace="+h.namespace, "--output=json")
	p := programs.Start(h.t, &programs.Log{}, shared.Built["watcher"], append([]string{"check"}, flags...)...)
	p.Exit()
	var found []struct{ Check, State, Seen string }
	require.NoError(h.t, json.Unmarshal([]byte(p.Stdout.String()), &found), "%s", p.Log)
	for _, f := range found {
		if f.Check == "key rotation" {
			return f.State + " " + f.Seen
		}
	}
	return ""
}

func (h *home) rotate() {
	h.t.Helper() // kubectl annotate secret airflow-requeue-signing-keys airflow-requeue.dev/rotate=now
	raw := fmt.Sprintf(`{"metadata":{"annotations":{%q:"now"}}}`, keyring.AnnotationRotate)
	_, err := h.Client.CoreV1().Secrets(h.namespace).Patch(h.t.Context(), signingKeys, types.MergePatchType, []byte(raw), metav1.PatchOptions{})
	require.NoError(h.t, err)
}

func TestKeysAreMadeAndRotatedUnderLoadAndNoPodIsTheWorseForIt(t *testing.T) {
	t.Parallel()
	h := newHome(newSite(t, shared.Servers))
	review := append(h.RegisterWebhook(h.timeout), "--shutdown-delay=0s", "--lease-max-age=2m", "--no-leader-release-after=3m")
	h.start("watcher", "watcher-0", time.Second, h.watcherFlags())
	h.start("watcher", "watcher-1", 3*time.Second, h.watcherFlags())
	webhook := h.start("webhook", "webhook-0", 5*time.Second, review)
	// Another replica of the webhook, which the API server does not ask.
	lagging := h.start("webhook", "webhook-1", 2*time.Second, append(slices.Clone(review), "--listen="+programs.FreeAddress(t)))

	h.untilHolding()
	holding := time.Now()
	first := h.ring()
	require.Len(t, first.Keys, 1, "four processes have made one key")
	waiting, _ := h.submit(unfit)
	require.Equal(t, first.Current, requeue.SignedWith(waiting))
	stop := h.work(time.Second/2, day()...)
	h.untilReplaced(time.Time{})

	lagging.mount.Hold()
	h.rotate()
	until(t, "a new key is published", func() bool { return h.ring().Next != "" })
	next := h.ring().Next
	has := func(held keyring.Held) bool { return slices.Contains(held.Keys, next) }
	until(t, "all but one have the new key", func() bool { return h.everybody(has, lagging) })
	began := time.Now()
	until(t, "the time in which it would sign has passed", func() bool { return time.Since(began) > 45*time.Second })
	assert.Equal(t, keyring.Ring{Keys: []string{first.Current, next}, Current: first.Current, Next: next, Since: first.Since}, h.ring())
	assert.Contains(t, h.check(h.members[0]), "these do not have key "+next+" yet: webhook-1")
	assert.Contains(t, h.check(h.members[0]), "ok ")

	lagging.mount.Release()
	until(t, "the new key signs", func() bool { return h.ring().Current == next })
	until(t, "all sign with it", func() bool { return h.everybody(func(held keyring.Held) bool { return held.Signs == next }) })
	signing, began := time.Now(), time.Now()
	until(t, "the time in which the old key would go has passed", func() bool { return time.Since(began) > 110*time.Second })
	assert.Equal(t, []string{first.Current}, h.ring().Old, "a pod is signed with it")
	h.untilReplaced(signing)
	require.NoError(t, h.airflow.Delete(t.Context(), waiting.Name)) // its seal is still good: it is replaced
	until(t, "the old key goes", func() bool { return slices.Equal(h.ring().Keys, []string{next}) })
	until(t, "nobody has it any more", func() bool {
		return h.everybody(func(held keyring.Held) bool { return slices.Equal(held.Keys, []string{next}) && held.Signs == next })
	})
	h.untilReplaced(time.Now())
	stop()
	h.settles()

	assert.Zero(t, h.count(func(e *entry) bool { return !e.held && e.at.After(holding) }), "every pod is held")
	h.unseen(func(e *entry) bool { return e.held && (took(e) || e.fate == runs) })
	for _, m := range h.members {
		assert.False(t, m.HasEnded(), "%s goes on", m.pod)
		m.secretive(t, h)
	}
	for _, m := range h.members[:2] {
		assert.Zero(t, m.metric("airflow_requeue_outcomes_total", `reason="Tampered"`))
		assert.Zero(t, m.metric("airflow_requeue_signing_keys_held_up"))
	}
	steps := func(step string) float64 {
		name := "airflow_requeue_signing_key_steps_total"
		return h.members[0].metric(name, `step="`+step+`"`) + h.members[1].metric(name, `step="`+step+`"`)
	}
	for step, times := range map[string]float64{"fill": 1, "restore": 0, "publish": 1, "sign": 1, "retire": 1} {
		assert.InDelta(t, times, steps(step), 0, step)
	}
	assert.Zero(t, webhook.metric("airflow_requeue_admissions_total", `outcome="Internal"`))
}

// secretive says that a process has logged no key, whole or in part.
func (m *member) secretive(t *testing.T, h *home) {
	t.Helper()
	for id, content := range h.secret().Data {
		if id != requeue.CurrentKey {
			assert.NotContains(t, m.Log.String(), string(content[:16]), "%s says key %s", m.pod, id)
		}
	}
}
