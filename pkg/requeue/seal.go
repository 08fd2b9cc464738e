package requeue

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// SealState says whether a pod's stamps are what was sealed.
type SealState int

const (
	// SealBad is missing, malformed or not what was signed. The zero value: nothing is believed unless it was verified.
	SealBad SealState = iota
	// SealUnknownKey is signed with a key that is not mounted here (yet).
	SealUnknownKey
	// SealValid vouches for Job: it is what the webhook saw.
	SealValid
)

// Seal is the outcome of a verification.
type Seal struct {
	State SealState
	Job   Job       // with SealValid
	Since time.Time // with SealUnknownKey: when this process first met it
	Error string    // with SealBad: what is wrong
}

// maxJobSpec bounds what a job spec may unpack to, in bytes. The API server takes no object above 3 MiB.
const maxJobSpec = 4 << 20

// Sealer packs job specs, signs stamps and verifies both. It is safe for concurrent use.
type Sealer struct {
	keys func() Keys
	enc  *zstd.Encoder
	dec  *zstd.Decoder
}

// NewSealer returns a Sealer that asks for the keys each time, so that they can be rotated.
func NewSealer(keys func() Keys) (*Sealer, error) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(1<<20))
	if err != nil {
		return nil, fmt.Errorf("making the job spec's encoder: %w", err)
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderMaxMemory(maxJobSpec))
	if err != nil {
		return nil, fmt.Errorf("making the job spec's decoder: %w", err)
	}
	return &Sealer{keys: keys, enc: enc, dec: dec}, nil
}

// Pack compresses a pod's JSON for its annotation and returns it with its checksum.
func (s *Sealer) Pack(pod []byte) (packed, checksum string) {
	return base64.StdEncoding.EncodeToString(s.enc.EncodeAll(pod, nil)), checksumOf(pod)
}

// Unpack returns the JSON that the pod's job spec holds. The caller has verified the pod.
func (s *Sealer) Unpack(pod *corev1.Pod) ([]byte, error) {
	raw, err := base64.StdEncoding.DecodeString(pod.Annotations[AnnotationJobSpec])
	if err != nil {
		return nil, errors.New("unpacking the job spec: not base64")
	}
	spec, err := s.dec.DecodeAll(raw, nil)
	if err != nil {
		return nil, fmt.Errorf("unpacking the job spec: %w", err)
	}
	if checksumOf(spec) != pod.Annotations[AnnotationJobSpecChecksum] {
		return nil, errors.New("unpacking the job spec: it is not what the checksum says")
	}
	return spec, nil
}

func checksumOf(pod []byte) string {
	sum := sha256.Sum256(pod)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// Sign returns the signature over the pod's stamps as they stand in its annotations. Task key and tuning are part of
// the job spec, and so of its checksum.
func (s *Sealer) Sign(pod metav1.Object, namespace, serviceAccount string) (string, error) {
	keys := s.keys()
	secret, ok := keys.Secrets[keys.Current]
	if !ok {
		return "", errors.New("signing the stamps: no current key")
	}
	return fmt.Sprintf("v1:%s:%s", keys.Current, hex.EncodeToString(mac(secret, pod, namespace, serviceAccount))), nil
}

// Verify checks signature, checksum and job spec of a pod as the API server has it.
func (s *Sealer) Verify(pod *corev1.Pod) Seal {
	bad := func(what string) Seal { return Seal{State: SealBad, Error: what} }
	id, code, ok := signature(pod)
	if !ok {
		return bad("the signature is missing or malformed")
	}
	got, err := hex.DecodeString(code)
	if err != nil {
		return bad("the signature is malformed")
	}
	secret, ok := s.keys().Secrets[id]
	if !ok {
		return Seal{State: SealUnknownKey}
	}
	if !hmac.Equal(got, mac(secret, pod, pod.Namespace, pod.Spec.ServiceAccountName)) {
		return bad("the signature does not match the stamps")
	}
	spec, err := s.Unpack(pod)
	if err != nil {
		return bad(err.Error())
	}
	job, err := ParseJob(spec)
	if err != nil {
		return bad(err.Error())
	}
	return Seal{State: SealValid, Job: job}
}

// SignedWith is the id of the key that the pod's signature names; empty where it names none.
func SignedWith(pod metav1.Object) string {
	id, _, _ := signature(pod)
	return id
}

// signature returns the parts of a pod's signature that may be believed to be what they should be.
func signature(pod metav1.Object) (id, code string, ok bool) {
	parts := strings.Split(pod.GetAnnotations()[AnnotationSignature], ":")
	if len(parts) != 3 || parts[0] != "v1" || !validKeyID(parts[1]) {
		return "", "", false
	}
	return parts[1], parts[2], true
}

// Fingerprint is the same for two pods where Verify says the same of both, for as long as the keys are the same: it costs a
// tenth of it. It is of all that Verify reads, and can't be forged.
func (s *Sealer) Fingerprint(pod *corev1.Pod) [sha256.Size]byte {
	a := pod.Annotations
	return [sha256.Size]byte(mac(s.keys().Secrets[SignedWith(pod)], pod, pod.Namespace, pod.Spec.ServiceAccountName, a[AnnotationSignature], a[AnnotationJobSpec]))
}

// mac is HMAC-SHA-256 over the fields, each with its length before it so that none can run into the next.
func mac(secret []byte, pod metav1.Object, namespace, serviceAccount string, more ...string) []byte {
	if serviceAccount == "" {
		serviceAccount = "default" // what the API server makes of it
	}
	a := pod.GetAnnotations()
	h := hmac.New(sha256.New, secret)
	for _, field := range append([]string{
		"airflow-requeue v1", namespace, pod.GetName(), serviceAccount, a[AnnotationOrigin], a[AnnotationRequeueOf],
		a[AnnotationAttempt], a[AnnotationQueuedAt], a[AnnotationJobSpecChecksum],
	}, more...) {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(field)))
		h.Write(n[:])
		h.Write([]byte(field))
	}
	return h.Sum(nil)
}
