package keyring

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// content is a key's, unlike any other's.
func content(id string) []byte { return []byte("the secret of the key that is called " + id) }

// secretOf has keys, and annotations in pairs.
func secretOf(current string, ids []string, annotations ...string) *corev1.Secret {
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{ResourceVersion: "7", CreationTimestamp: metav1.NewTime(begun), Annotations: map[string]string{}},
		Data: map[string][]byte{}}
	for _, id := range ids {
		s.Data[id] = content(id)
	}
	if current != "" {
		s.Data[requeue.CurrentKey] = []byte(current)
	}
	for i := 0; i < len(annotations); i += 2 {
		s.Annotations[annotations[i]] = annotations[i+1]
	}
	return s
}

func TestRead(t *testing.T) {
	ids := []string{"k1", "k2", "k3"}
	owned := secretOf("k1", ids)
	owned.OwnerReferences = []metav1.OwnerReference{{Kind: "ExternalSecret", Name: "keys"}}
	immutable := secretOf("k1", ids)
	immutable.Immutable = ptr.To(true)
	const badCurrent = "file current must hold the name of another file: that of the key that signs"
	for _, c := range []struct {
		name   string
		secret *corev1.Secret
		want   Ring
	}{
		{"as the manifests have it", secretOf("", nil), Ring{}},
		{"filled by hand", secretOf("k1", []string{"k1"}), Ring{Keys: []string{"k1"}, Current: "k1", Since: begun}},
		{"in the middle of a rotation", secretOf("k2", ids, AnnotationNext, "k3", AnnotationOld, "k1", AnnotationSince, "k2 2026-12-01T00:00:00Z", AnnotationRotate, "now"),
			Ring{Keys: ids, Current: "k2", Next: "k3", Old: []string{"k1"}, Since: begun.Add(12 * time.Hour), Asked: true}},
		{"somebody has had another key sign", secretOf("k3", ids, AnnotationSince, "k2 2026-12-01T00:00:00Z", AnnotationOld, "k1 k3 k0 k1"),
			Ring{Keys: ids, Current: "k3", Old: []string{"k1"}, Since: begun}},
		{"somebody has had the next key sign", secretOf("k3", ids, AnnotationNext, "k3"), Ring{Keys: ids, Current: "k3", Since: begun}},
		{"a time that can't be read", secretOf("k1", ids, AnnotationSince, "k1 soon"), Ring{Keys: ids, Current: "k1", Since: begun}},
		{"somebody has taken the next key out", secretOf("k1", []string{"k1"}, AnnotationNext, "k2"), Ring{Keys: []string{"k1"}, Current: "k1", Next: "k2", Since: begun,
			Trouble: "somebody has taken out the key that is to sign next: take the annotation airflow-requeue.dev/signs-next off as well"}},
		{"a secret where an id should be", secretOf(string(content("k1")), ids), Ring{Trouble: badCurrent}},
		{"no key signs", secretOf("", ids), Ring{Trouble: badCurrent}},
		{"a key that is too short", &corev1.Secret{Data: map[string][]byte{"current": []byte("k1"), "k1": []byte("short")}},
			Ring{Trouble: "signing key k1: 5 bytes, at least 32 are needed"}},
		{"another's", owned, Ring{Trouble: "it belongs to ExternalSecret keys, which would undo what is done to it: set --signing-keys-secret to nothing"}},
		{"one that can't be changed", immutable, Ring{Trouble: "it is immutable"}},
	} {
		t.Run(c.name, func(t *testing.T) { assert.Equal(t, c.want, Read(c.secret)) })
	}
}

func TestARingIsSaidByItsIDs(t *testing.T) {
	assert.Equal(t, "no key yet", Ring{}.String())
	assert.Equal(t, "it is immutable", Ring{Trouble: "it is immutable"}.String())
	assert.Equal(t, "k2 signs, since 2026-11-30; k3 is to sign next; to be retired: k0, k1",
		Ring{Keys: []string{"k0", "k1", "k2", "k3"}, Current: "k2", Next: "k3", Old: []string{"k0", "k1"}, Since: begun}.String())
}

// merge applies a merge patch (RFC 7386) to a Secret, as the API server does, but for the check of its version.
func merge(t testing.TB, secret *corev1.Secret, raw []byte) *corev1.Secret {
	t.Helper()
	var c change
	require.NoError(t, json.Unmarshal(raw, &c))
	require.Equal(t, secret.ResourceVersion, c.Metadata.ResourceVersion)
	changed := secret.DeepCopy()
	if changed.Annotations == nil {
		changed.Annotations = map[string]string{}
	}
	for name, value := range c.Metadata.Annotations {
		if value == nil {
			delete(changed.Annotations, name)
		} else {
			changed.Annotations[name] = *value
		}
	}
	if changed.Data == nil {
		changed.Data = map[string][]byte{}
	}
	for name, value := range c.Data {
		if value == nil {
			delete(changed.Data, name)
		} else {
			changed.Data[name] = value
		}
	}
	return changed
}

func TestAStepIsOneWrite(t *testing.T) {
	own := requeue.Keys{Current: "k1", Secrets: map[string][]byte{"k1": content("k1"), "k2": content("k2")}}
	const since = "2026-11-30T12:00:00Z"
	for _, c := range []struct {
		name   string
		before *corev1.Secret
		step   Step
		want   *corev1.Secret // but for what a new key holds
	}{
		{"fill", secretOf("", nil, AnnotationRotate, "now", AnnotationNext, "k9", AnnotationOld, "k8"), Step{Action: Fill, Key: fresh},
			secretOf(fresh, []string{fresh}, AnnotationSince, fresh+" "+since)},
		{"restore", secretOf("", nil, AnnotationNext, "k9", "other", "stays"), Step{Action: Restore},
			secretOf("k1", []string{"k1", "k2"}, AnnotationSince, "k1 "+since, "other", "stays")},
		{"publish", secretOf("k1", []string{"k1"}, AnnotationRotate, "now", AnnotationSince, "k1 then"), Step{Action: Publish, Key: fresh},
			secretOf("k1", []string{"k1", fresh}, AnnotationNext, fresh, AnnotationSince, "k1 then")},
		{"sign", secretOf("k1", []string{"k0", "k1", "k2"}, AnnotationNext, "k2", AnnotationOld, "k0", AnnotationRotate, "again"), Step{Action: Sign, Key: "k2"},
			secretOf("k2", []string{"k0", "k1", "k2"}, AnnotationOld, "k0 k1", AnnotationSince, "k2 "+since, AnnotationRotate, "again")},
		{"retire", secretOf("k2", []string{"k0", "k1", "k2"}, AnnotationOld, "k0 k1"), Step{Action: Retire, Key: "k0"},
			secretOf("k2", []string{"k1", "k2"}, AnnotationOld, "k1")},
		{"retire the last", secretOf("k2", []string{"k1", "k2"}, AnnotationOld, "k1"), Step{Action: Retire, Key: "k1"},
			secretOf("k2", []string{"k2"})},
	} {
		t.Run(c.name, func(t *testing.T) {
			raw, err := patch(c.before, Read(c.before), c.step, own, begun)
			require.NoError(t, err)
			got := merge(t, c.before, raw)
			if made := got.Data[fresh]; made != nil {
				assert.Regexp(t, `^[A-Z2-7]{52}$`, string(made))
				again, err := patch(c.before, Read(c.before), c.step, own, begun)
				require.NoError(t, err)
				assert.NotEqual(t, made, merge(t, c.before, again).Data[fresh], "no two keys are alike")
				got.Data[fresh] = content(fresh)
			}
			assert.Equal(t, c.want, got)
			assert.Empty(t, Read(got).Trouble)
		})
	}
	_, err := patch(secretOf("k1", []string{"k1"}), Ring{}, Step{}, own, begun)
	assert.EqualError(t, err, "writing the step wait: it is none")
}

func TestWhatAReaderSaysIsItsIDs(t *testing.T) {
	answer := httptest.NewRecorder()
	Handler(func() requeue.Keys {
		return requeue.Keys{Current: "k2", Secrets: map[string][]byte{"k2": content("k2"), "k1": content("k1")}}
	}).ServeHTTP(answer, httptest.NewRequest(http.MethodGet, Path, nil))
	assert.JSONEq(t, `{"keys":["k1","k2"],"signs":"k2"}`, answer.Body.String())

	answer = httptest.NewRecorder()
	Handler(func() requeue.Keys { return requeue.Keys{} }).ServeHTTP(answer, httptest.NewRequest(http.MethodGet, Path, nil))
	assert.JSONEq(t, `{"keys":[],"signs":""}`, answer.Body.String())
}
