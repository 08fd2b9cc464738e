package watcher

import (
	"crypto/sha256"
	"fmt"
	"unique"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// heldPod is a tracked pod as decisions take it, and the verdict on its seal, which takes the whole pod.
type heldPod struct {
	*corev1.Pod
	seal requeue.Seal
}

// trackedPod is how the informer keeps a tracked pod: encoded, since nearly all wait for something to happen, and decoded it is
// four times as large. The names are apart, for those who look for a pod.
type trackedPod struct {
	namespace, name string
	uid             types.UID
	version         string
	chain           string
	signedWith      string // the id of the key
	encoded         []byte // what decisions read of the pod; protobuf
	seal            *requeue.Seal
	sealed          [sha256.Size]byte // the fingerprint of what was verified
}

// GetObjectMeta is what client-go asks for.
func (t *trackedPod) GetObjectMeta() metav1.Object {
	return &metav1.ObjectMeta{Namespace: t.namespace, Name: t.name, UID: t.uid, ResourceVersion: t.version}
}

func (t *trackedPod) objectName() cache.ObjectName {
	return cache.NewObjectName(t.namespace, t.name)
}

// chainKey names the chain of the pod; the chain's first pod has this key itself.
func (t *trackedPod) chainKey() string { return t.namespace + "/" + t.chain }

// track encodes what is kept of a pod. last is how it was kept before, if it was: most changes of a pod leave its seal alone,
// and to verify it takes longer than all else here.
func track(pod *corev1.Pod, sealer *requeue.Sealer, last *trackedPod) (*trackedPod, error) {
	encoded, err := slimmed(pod).Marshal()
	if err != nil {
		return nil, fmt.Errorf("encoding pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	t := &trackedPod{version: pod.ResourceVersion, encoded: encoded, sealed: sealer.Fingerprint(pod), signedWith: shared(requeue.SignedWith(pod))}
	if last != nil && last.uid == pod.UID && last.sealed == t.sealed && last.seal.State == requeue.SealValid {
		t.namespace, t.name, t.uid, t.chain, t.seal = last.namespace, last.name, last.uid, last.chain, last.seal
		return t, nil
	}
	seal := sealer.Verify(pod)
	seal.Job.Ref.DagID, seal.Job.Ref.RunID = shared(seal.Job.Ref.DagID), shared(seal.Job.Ref.RunID)
	if len(seal.Job.Tuning) == 0 {
		seal.Job.Tuning = nil
	}
	t.namespace, t.name, t.uid, t.seal = shared(pod.Namespace), pod.Name, pod.UID, &seal
	if t.chain = pod.Annotations[requeue.AnnotationOrigin]; t.chain == t.name {
		t.chain = t.name // once in memory
	}
	return t, nil
}

// held decodes the pod.
func (t *trackedPod) held() *heldPod {
	p := &heldPod{Pod: &corev1.Pod{}, seal: *t.seal}
	if err := p.Unmarshal(t.encoded); err != nil {
		panic(fmt.Sprintf("decoding pod %s/%s, which was encoded here: %v", t.namespace, t.name, err))
	}
	p.UID = t.uid // what is remembered by it shares it
	return p
}

// shared is a string of which there is one in memory, however many pods have it.
func shared(s string) string { return unique.Make(s).Value() }
