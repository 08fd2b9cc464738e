package manifests_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"

	"path/filepath"

	"github.com/airflow-requeue/airflow-requeue/internal/programs"
	"github.com/airflow-requeue/airflow-requeue/internal/world"
	"github.com/airflow-requeue/airflow-requeue/pkg/keyring"
)

const signingKeys = "airflow-requeue-signing-keys"

// TestAnInstallationMakesItsOwnKeys plays the kubelet: two watchers begin at once, and a webhook that comes first.
func TestAnInstallationMakesItsOwnKeys(t *testing.T) {
	w := world.New(t, servers.Config(), filepath.Join("..", "..", "pkg", "tidb", "testdata", "3.3.2-sqlite.sql"))
	all := moved(t, w.Namespace, w.Namespace)
	granted(t, w.Namespace, all.rights())
	applyAll(t, all.of("Secret"))
	files := secrets(t, w)
	files[signingKeys] = nil
	run := func(name string, init bool) *container {
		template := into[appsv1.Deployment](t, all, "Deployment", "airflow-requeue-"+name).Spec.Template
		spec := template.Spec.Containers[0]
		if init {
			spec = template.Spec.InitContainers[0]
		}
		c := newContainer(t, w.Namespace, template, spec, files)
		programs.MountSecret(t, w.Client, w.Namespace, signingKeys, c.keys(t), time.Second)
		if init { // each pod has an address of its own
			c.args = append(c.args, "--metrics-listen="+programs.FreeAddress(t))
		}
		c.start(t, built[name])
		return c
	}
	webhook := run("webhook", false)
	steps := []*container{run("watcher", true), run("watcher", true)}
	for _, step := range steps {
		require.NoError(t, <-step.exited, "%s", &step.output)
		assert.Contains(t, step.output.String(), "no signing keys are mounted yet, waiting for them")
		assert.Regexp(t, `ok +signing keys +1 key, k\d{8}-\d{6} signs`, step.output.String())
		assert.Regexp(t, `ok +key rotation +k\d{8}-\d{6} signs, since `, step.output.String())
	}
	watcher := run("watcher", false)
	webhook.probe(t, webhook.spec.ReadinessProbe)
	watcher.probe(t, watcher.spec.ReadinessProbe)

	secret := keysOf(t, w)
	ring := keyring.Read(secret)
	require.Len(t, ring.Keys, 1, "both have made one key")
	assert.Len(t, secret.Data, 2)
	made := 0
	for _, c := range append(steps, webhook, watcher) {
		if c == webhook || c == watcher {
			require.NoError(t, c.stop(t, time.Minute), "%s", &c.output)
		}
		made += strings.Count(c.output.String(), `"step":"fill"`)
		assert.NotContains(t, c.output.String(), string(secret.Data[ring.Current]))
	}
	assert.Equal(t, 1, made)
}

// keys is the folder with a container's signing keys.
func (c *container) keys(t *testing.T) string {
	t.Helper()
	for _, arg := range c.args {
		if dir, ok := strings.CutPrefix(arg, "--signing-keys-dir="); ok {
			return dir
		}
	}
	require.FailNow(t, "no signing keys are mounted")
	return ""
}

func keysOf(t *testing.T, w *world.World) *corev1.Secret {
	t.Helper()
	secret, err := w.Client.CoreV1().Secrets(w.Namespace).Get(t.Context(), signingKeys, metav1.GetOptions{})
	require.NoError(t, err)
	return secret
}

// TestApplyingTheManifestsOnceMoreLeavesTheKeysAlone has them applied in each way that there is, in the middle of a rotation.
func TestApplyingTheManifestsOnceMoreLeavesTheKeysAlone(t *testing.T) {
	w := world.Bare(t, servers.Config())
	manifest := moved(t, w.Namespace, w.Namespace).of("Secret")
	require.Len(t, manifest, 1)
	said, err := json.Marshal(manifest[0].Object)
	require.NoError(t, err)
	applyAll(t, manifest)
	patch := func(raw string) {
		_, err := w.Client.CoreV1().Secrets(w.Namespace).Patch(t.Context(), signingKeys, types.MergePatchType, []byte(raw), metav1.PatchOptions{FieldManager: "watcher"})
		require.NoError(t, err)
	}
	patch(`{"metadata":{"annotations":{"airflow-requeue.dev/signs-next":"k2"}},"data":{"current":"azE=","k1":"b25l","k2":"dHdv"}}`)
	before := keysOf(t, w)

	t.Run("by the server", func(t *testing.T) { // kubectl apply --server-side, Flux, Helm 4
		applyAll(t, manifest)
		assert.Equal(t, before.Data, keysOf(t, w).Data)
		assert.Equal(t, before.Annotations, keysOf(t, w).Annotations)
	})
	t.Run("by a merge of three", func(t *testing.T) { // kubectl apply, Argo CD, Helm 3
		live, err := json.Marshal(keysOf(t, w))
		require.NoError(t, err)
		schema, err := strategicpatch.NewPatchMetaFromStruct(corev1.Secret{})
		require.NoError(t, err)
		raw, err := strategicpatch.CreateThreeWayMergePatch(said, said, live, schema, true)
		require.NoError(t, err)
		_, err = w.Client.CoreV1().Secrets(w.Namespace).Patch(t.Context(), signingKeys, types.StrategicMergePatchType, raw, metav1.PatchOptions{})
		require.NoError(t, err)
		assert.Equal(t, before.Data, keysOf(t, w).Data)
		assert.Equal(t, before.Annotations, keysOf(t, w).Annotations)
	})
	t.Run("but not by a replacement", func(t *testing.T) { // kubectl replace, helm --force: the leader puts back what it has
		secret := decode[corev1.Secret](t, manifest[0])
		_, err := w.Client.CoreV1().Secrets(w.Namespace).Update(t.Context(), secret, metav1.UpdateOptions{})
		require.NoError(t, err)
		assert.Empty(t, keysOf(t, w).Data)
	})
}
