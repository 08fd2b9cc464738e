package requeue

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"runtime"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
)

func secret(of string) []byte { return bytes.Repeat([]byte(of), MinKeyBytes) }

func keys(current string, ids ...string) Keys {
	k := Keys{Current: current, Secrets: map[string][]byte{}}
	for _, id := range ids {
		k.Secrets[id] = secret(id)
	}
	return k
}

func sealer(tb testing.TB, k Keys) *Sealer {
	tb.Helper()
	s, err := NewSealer(func() Keys { return k })
	require.NoError(tb, err)
	return s
}

// admitted is a pod as the API server has it after the webhook held what Airflow submitted.
func admitted(tb testing.TB, s *Sealer, submitted []byte) *corev1.Pod {
	tb.Helper()
	pod := &unstructured.Unstructured{}
	require.NoError(tb, pod.UnmarshalJSON(submitted))
	Unstamp(pod)
	spec, err := JobSpec(pod)
	require.NoError(tb, err)
	require.NoError(tb, s.Stamp(pod, "prod", "airflow", spec))
	raw, err := pod.MarshalJSON()
	require.NoError(tb, err)
	return stored(tb, raw, "uid-0")
}

// stored is what the API server makes of the JSON that it takes.
func stored(tb testing.TB, raw []byte, uid types.UID) *corev1.Pod {
	tb.Helper()
	pod := &corev1.Pod{}
	require.NoError(tb, json.Unmarshal(raw, pod))
	pod.UID, pod.Status.Phase = uid, corev1.PodPending
	if pod.Namespace == "" {
		pod.Namespace = "airflow"
	}
	if pod.Spec.ServiceAccountName == "" {
		pod.Spec.ServiceAccountName = "default"
	}
	return pod
}

func plainPod(tb testing.TB) []byte {
	tb.Helper()
	return airflowPods(tb, "3.3.2")["a plain task"]
}

func TestWhatWasSealedIsValid(t *testing.T) {
	s := sealer(t, keys("a", "a"))
	for _, version := range []string{"2.10.5", "3.3.2"} {
		for name, submitted := range airflowPods(t, version) {
			t.Run(version+" "+name, func(t *testing.T) {
				want, err := ParseJob(submitted)
				require.NoError(t, err)
				require.Equal(t, Seal{State: SealValid, Job: want}, s.Verify(admitted(t, s, submitted)))
			})
		}
	}
}

func TestWhatIsNotSealedMayChange(t *testing.T) {
	s := sealer(t, keys("a", "a"))
	pod := admitted(t, s, plainPod(t))
	want := s.Verify(pod)
	require.Equal(t, SealValid, want.State)
	for _, name := range []string{AnnotationReason, AnnotationMessage, AnnotationDetached, AnnotationWaitingSince, AnnotationCommitted, AnnotationNotBefore, AnnotationMaxRetries, "dag_id"} {
		pod.Annotations[name] = "changed"
	}
	pod.Labels, pod.Finalizers, pod.UID = nil, nil, "another"
	pod.Spec.Containers[0].Args = nil
	require.Equal(t, want, s.Verify(pod), "the job is the sealed one, whatever the live pod says")
}

func TestWhateverIsSealedCannotChange(t *testing.T) {
	s := sealer(t, keys("a", "a"))
	forged := "the signature does not match the stamps"
	annotate := func(name, value string) func(*corev1.Pod) { return func(p *corev1.Pod) { p.Annotations[name] = value } }
	for _, c := range []struct {
		name   string
		change func(*corev1.Pod)
		want   string
	}{
		{"another name", func(p *corev1.Pod) { p.Name += "x" }, forged},
		{"another namespace", func(p *corev1.Pod) { p.Namespace = "kube-system" }, forged},
		{"another service account", func(p *corev1.Pod) { p.Spec.ServiceAccountName = "admin" }, forged},
		{"the default service account for the pod's own", func(p *corev1.Pod) { p.Spec.ServiceAccountName = "" }, forged},
		{"another attempt", annotate(AnnotationAttempt, "-5"), forged},
		{"another spelling of the attempt", annotate(AnnotationAttempt, "00"), forged},
		{"another origin", annotate(AnnotationOrigin, "etl-load-other"), forged},
		{"no origin", func(p *corev1.Pod) { delete(p.Annotations, AnnotationOrigin) }, forged},
		{"a pod to replace", annotate(AnnotationRequeueOf, "uid-5"), forged},
		{"a queueing", annotate(AnnotationQueuedAt, FormatTime(noon())), forged},
		{"another checksum", annotate(AnnotationJobSpecChecksum, "sha256:00"), forged},
		{"another job spec", func(p *corev1.Pod) { p.Annotations[AnnotationJobSpec], _ = s.Pack([]byte(`{}`)) }, "unpacking the job spec: it is not what the checksum says"},
		{"another job spec with its checksum", func(p *corev1.Pod) {
			p.Annotations[AnnotationJobSpec], p.Annotations[AnnotationJobSpecChecksum] = s.Pack([]byte(`{}`))
		}, forged},
		{"no job spec", func(p *corev1.Pod) { delete(p.Annotations, AnnotationJobSpec) }, "unpacking the job spec: it is not what the checksum says"},
		{"a job spec that is no base64", annotate(AnnotationJobSpec, "!"), "unpacking the job spec: not base64"},
		{"a job spec that was cut", func(p *corev1.Pod) {
			p.Annotations[AnnotationJobSpec] = p.Annotations[AnnotationJobSpec][:len(p.Annotations[AnnotationJobSpec])/8*4]
		}, "unpacking the job spec: unexpected EOF"},
		{"no signature", func(p *corev1.Pod) { delete(p.Annotations, AnnotationSignature) }, "the signature is missing or malformed"},
		{"no stamps", func(p *corev1.Pod) { p.Annotations = nil }, "the signature is missing or malformed"},
		{"a signature of another version", annotate(AnnotationSignature, "v2:a:00"), "the signature is missing or malformed"},
		{"a signature without a key", annotate(AnnotationSignature, "v1::00"), "the signature is missing or malformed"},
		{"a signature of two parts", annotate(AnnotationSignature, "v1:a"), "the signature is missing or malformed"},
		{"a signature of four parts", annotate(AnnotationSignature, "v1:a:00:00"), "the signature is missing or malformed"},
		{"a key that is a path", annotate(AnnotationSignature, "v1:../a:00"), "the signature is missing or malformed"},
		{"a signature that is no hex", annotate(AnnotationSignature, "v1:a:zz"), "the signature is malformed"},
		{"a signature that is empty", annotate(AnnotationSignature, "v1:a:"), forged},
		{"a signature that was cut", func(p *corev1.Pod) {
			p.Annotations[AnnotationSignature] = p.Annotations[AnnotationSignature][:len("v1:a:")+32]
		}, forged},
	} {
		t.Run(c.name, func(t *testing.T) {
			pod := admitted(t, s, plainPod(t))
			require.Equal(t, SealValid, s.Verify(pod).State)
			c.change(pod)
			require.Equal(t, Seal{State: SealBad, Error: c.want}, s.Verify(pod))
		})
	}
}

func TestASealedPodThatNamesNoTaskInstanceIsBad(t *testing.T) {
	s := sealer(t, keys("a", "a"))
	got := s.Verify(admitted(t, s, []byte(`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"x"}}`)))
	require.Equal(t, Seal{State: SealBad, Error: "reading the task instance: annotation dag_id is missing"}, got)
}

func TestNoServiceAccountIsTheDefaultOne(t *testing.T) {
	s := sealer(t, keys("a", "a"))
	submitted := bytes.ReplaceAll(plainPod(t), []byte(`"serviceAccountName": "airflow-worker",`), nil)
	require.NotContains(t, string(submitted), "serviceAccountName")
	pod := admitted(t, s, submitted)
	require.Equal(t, "default", pod.Spec.ServiceAccountName)
	require.Equal(t, SealValid, s.Verify(pod).State)
}

func TestKeysAreRotated(t *testing.T) {
	before, during, after := sealer(t, keys("a", "a")), sealer(t, keys("b", "a", "b")), sealer(t, keys("b", "b"))
	pod := admitted(t, before, plainPod(t))
	require.Equal(t, SealValid, during.Verify(pod).State, "an old key verifies while it is mounted")
	require.Equal(t, Seal{State: SealUnknownKey}, after.Verify(pod), "and is unknown once it is not")
	require.Equal(t, Seal{State: SealUnknownKey}, sealer(t, Keys{}).Verify(pod))

	pod = admitted(t, during, plainPod(t))
	require.True(t, strings.HasPrefix(pod.Annotations[AnnotationSignature], "v1:b:"), "the current key signs")
	require.Equal(t, SealValid, after.Verify(pod).State)
	require.Equal(t, Seal{State: SealUnknownKey}, before.Verify(pod))

	other := Keys{Current: "b", Secrets: map[string][]byte{"b": secret("c")}}
	require.Equal(t, Seal{State: SealBad, Error: "the signature does not match the stamps"}, sealer(t, other).Verify(pod), "an id is not a secret")
}

func TestKeysAreAskedForEachTime(t *testing.T) {
	now := keys("a", "a")
	s, err := NewSealer(func() Keys { return now })
	require.NoError(t, err)
	pod := admitted(t, s, plainPod(t))
	now = keys("b", "b")
	require.Equal(t, SealUnknownKey, s.Verify(pod).State)
	now = keys("b", "a", "b")
	require.Equal(t, SealValid, s.Verify(pod).State)
}

func TestSigningNeedsTheCurrentKey(t *testing.T) {
	_, err := sealer(t, keys("b", "a")).Sign(&corev1.Pod{}, "airflow", "")
	require.EqualError(t, err, "signing the stamps: no current key")
}

func TestKeysValidate(t *testing.T) {
	for _, c := range []struct {
		name string
		keys Keys
		want string
	}{
		{"one key", keys("a", "a"), ""},
		{"two keys", keys("2026-01_a.b", "2026-01_a.b", "B"), ""},
		{"ids to the limits", keys("azAZ09._-", "azAZ09._-", strings.Repeat("a", 63)), ""},
		{"none", Keys{}, "no signing key"},
		{"none is current", keys("", "a"), `current signing key "" is not among the keys`},
		{"the current one is missing", keys("b", "a"), `current signing key "b" is not among the keys`},
		{"an id that would break the signature apart", Keys{Secrets: map[string][]byte{"a:b": secret("a")}},
			`signing key "a:b": an id is 1 to 63 letters, digits, '-', '_' or '.'`},
		{"an id that is empty", Keys{Secrets: map[string][]byte{"": secret("a")}}, `signing key "": an id is 1 to 63 letters, digits, '-', '_' or '.'`},
		{"an id that is long", Keys{Secrets: map[string][]byte{strings.Repeat("a", 64): secret("a")}},
			`signing key "` + strings.Repeat("a", 40) + `": an id is 1 to 63 letters, digits, '-', '_' or '.'`},
		{"a secret that is short", Keys{Current: "a", Secrets: map[string][]byte{"a": []byte("hush")}}, "signing key a: 4 bytes, at least 32 are needed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := c.keys.Validate()
			if c.want == "" {
				require.NoError(t, err)
				return
			}
			require.EqualError(t, err, c.want)
			require.NotContains(t, err.Error(), "hush")
		})
	}
}

// No two ways to cut the same characters into fields have the same signature.
func TestNoFieldRunsIntoTheNext(t *testing.T) {
	seen := map[string][]string{}
	fields := []string{AnnotationOrigin, AnnotationRequeueOf, AnnotationAttempt, AnnotationQueuedAt, AnnotationJobSpecChecksum}
	for i := range fields {
		for j := range 8 {
			pod := &corev1.Pod{}
			pod.Annotations = map[string]string{}
			pod.Name = "abcdefgh"[:j]
			pod.Annotations[fields[i]] = "abcdefgh"[j:]
			for _, account := range []string{"x", "y"} {
				for _, namespace := range []string{"x", "y"} {
					m := string(mac(secret("a"), pod, namespace, account))
					what := []string{fields[i], pod.Name, namespace, account}
					require.NotContains(t, seen, m, "%v and %v", seen[m], what)
					seen[m] = what
				}
			}
		}
	}
}

// bombs are job specs of a few bytes that unpack to far more than a pod may have.
func bombs(tb testing.TB) map[string][]byte {
	tb.Helper()
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBestCompression))
	require.NoError(tb, err)
	zeros := make([]byte, 64<<20)
	var stream bytes.Buffer
	w, err := zstd.NewWriter(&stream, zstd.WithWindowSize(zstd.MaxWindowSize))
	require.NoError(tb, err)
	_, err = w.Write(zeros)
	require.NoError(tb, err)
	require.NoError(tb, w.Close())
	return map[string][]byte{
		"that says how much":                            enc.EncodeAll(zeros, nil),
		"that does not say":                             stream.Bytes(),
		"of many small frames":                          bytes.Repeat(enc.EncodeAll(zeros[:1<<20], nil), 64),
		"just above what is taken":                      enc.EncodeAll(zeros[:maxJobSpec+1], nil),
		"that lies: three gigabytes in no bytes at all": {0x28, 0xb5, 0x2f, 0xfd, 0xa0, 0, 0, 0, 0xc0, 1, 0, 0},
	}
}

func TestABombIsBadAndTakesLittleMemory(t *testing.T) {
	s := sealer(t, keys("a", "a"))
	for name, bomb := range bombs(t) {
		t.Run("a job spec "+name, func(t *testing.T) {
			pod := admitted(t, s, plainPod(t))
			pod.Annotations[AnnotationJobSpec] = base64.StdEncoding.EncodeToString(bomb)
			require.Less(t, len(bomb), 256<<10, "it fits an annotation")
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			got := s.Verify(pod)
			runtime.ReadMemStats(&after)
			require.Equal(t, SealBad, got.State)
			require.Contains(t, got.Error, "unpacking the job spec: ")
			require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(4*maxJobSpec))
		})
	}
}

func TestAJobSpecOfTheGreatestSizeUnpacks(t *testing.T) {
	s := sealer(t, keys("a", "a"))
	spec := bytes.Repeat([]byte("x"), maxJobSpec)
	packed, checksum := s.Pack(spec)
	pod := &corev1.Pod{}
	pod.Annotations = map[string]string{AnnotationJobSpec: packed, AnnotationJobSpecChecksum: checksum}
	got, err := s.Unpack(pod)
	require.NoError(t, err)
	require.True(t, bytes.Equal(spec, got))
}

func FuzzUnpack(f *testing.F) {
	s := sealer(f, keys("a", "a"))
	packed, _ := s.Pack(plainPod(f))
	f.Add(packed)
	f.Add(packed[:len(packed)/8*4])
	f.Add("")
	f.Add("KLUv/aAAAADAAQAA") // three gigabytes in no bytes at all
	f.Fuzz(func(t *testing.T, packed string) {
		pod := &corev1.Pod{}
		pod.Annotations = map[string]string{AnnotationJobSpec: packed, AnnotationJobSpecChecksum: checksumOf(nil)}
		spec, err := s.Unpack(pod)
		require.True(t, err != nil || len(spec) == 0, "only what the checksum says is unpacked")
	})
}
