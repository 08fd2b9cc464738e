package preflight

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/airflow-requeue/airflow-requeue/pkg/keyring"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
	"github.com/airflow-requeue/airflow-requeue/pkg/watcher"
)

func TestItIsSaidHowTheKeysStand(t *testing.T) {
	t.Parallel()
	keys := map[string][]byte{"current": []byte("k1"), "k1": make([]byte, requeue.MinKeyBytes), "k2": make([]byte, requeue.MinKeyBytes)}
	for _, c := range []struct {
		name   string
		secret *corev1.Secret
		want   Finding
	}{
		{"no Secret", nil, Finding{"key rotation", Warn, "there is no Secret signing-keys in namespace NS", ""}},
		{"no key", &corev1.Secret{}, Finding{"key rotation", Warn, "Secret signing-keys has no key", ""}},
		{"nothing under way", &corev1.Secret{Data: keys}, Finding{"key rotation", OK, "k1 signs, since DATE", ""}},
		{"a Secret that can't be used", &corev1.Secret{Data: map[string][]byte{"current": []byte("s3cret")}},
			Finding{"key rotation", Warn, "nothing is done to Secret signing-keys: file current must hold the name of another file: that of the key that signs", ""}},
		{"readers that are not found", &corev1.Secret{Data: keys, ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{keyring.AnnotationNext: "k2"}}},
			Finding{"key rotation", Warn, "k1 signs, since DATE; k2 is to sign next; no pod of the webhook, or none of the watcher, is found by its labels", ""}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			i := newInstallation(t)
			i.options.KeysSecret = "signing-keys"
			if c.secret != nil {
				c.secret.Name = i.options.KeysSecret
				_, err := i.Client.CoreV1().Secrets(i.Namespace).Create(t.Context(), c.secret, metav1.CreateOptions{})
				require.NoError(t, err)
			}
			assert.Equal(t, c.want, i.find("key rotation"))
		})
	}
}

func TestARotationThatWaitsNamesWhomItWaitsFor(t *testing.T) {
	ring := keyring.Ring{Keys: []string{"k1", "k2"}, Current: "k1", Next: "k2", Since: time.Date(2026, 11, 30, 0, 0, 0, 0, time.UTC)}
	reader := func(component string, keys ...string) keyring.Reader {
		return keyring.Reader{Pod: component + "-0", Component: component, Held: keyring.Held{Keys: keys, Signs: "k1"}}
	}
	silent := keyring.Reader{Pod: "webhook-1", Component: "webhook", Silent: "connection refused"}
	const said = "k1 signs, since 2026-11-30; k2 is to sign next"
	assert.Equal(t, ok(said), judgeRotation(ring, []keyring.Reader{reader("watcher", "k1", "k2"), reader("webhook", "k1", "k2")}))
	assert.Equal(t, ok(said+"; these do not have key k2 yet: webhook-0"), judgeRotation(ring, []keyring.Reader{reader("watcher", "k1", "k2"), reader("webhook", "k1")}))
	found := judgeRotation(ring, []keyring.Reader{reader("watcher", "k1", "k2"), reader("webhook", "k1", "k2"), silent})
	assert.Equal(t, Warn, found.State)
	assert.Equal(t, said+"; these do not say which keys they have: webhook-1 (connection refused)", found.Seen)
	assert.Contains(t, found.ToDo, "port metrics")
}

func TestTheKeysOfAnotherNamespaceNeedItsPods(t *testing.T) {
	options := Options{Namespaces: []string{"airflow"}, Lease: watcher.LeaseOptions{Namespace: "home", Name: "blue"}}
	said := func() (rights []string) {
		for _, r := range Rights(options) {
			rights = append(rights, r.String())
		}
		return rights
	}
	without := said()
	options.KeysSecret = "keys"
	assert.ElementsMatch(t, append(without, "get,patch secrets/keys -n home", "list pods -n home"), said())
}
