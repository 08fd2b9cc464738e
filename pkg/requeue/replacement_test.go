package requeue

import (
	"bytes"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/validate/content"
)

// exact decodes JSON with every digit of its numbers.
func exact(tb testing.TB, raw []byte) map[string]any {
	tb.Helper()
	var v map[string]any
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	require.NoError(tb, d.Decode(&v))
	return v
}

func nextOf(attempt int) Next {
	return Next{Attempt: attempt, QueuedAt: queuedAt(), NotBefore: noon().Add(5 * time.Second), AvoidNode: node}
}

// oddPod is a pod with what a pod of the executor never has, and fields that no API has yet.
const oddPod = `{
  "apiVersion": "v1", "kind": "Pod", "futureTop": {"a": [1, 2.5, null, true, 9007199254740993, -0.1]},
  "metadata": {
    "name": "etl-load-x7k2m9qa", "namespace": "airflow", "uid": "", "creationTimestamp": null, "generation": 1, "resourceVersion": "",
    "managedFields": [{"manager": "python"}], "selfLink": "/x", "futureMeta": "<&>",
    "ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "u"}], "finalizers": ["example.com/own"],
    "annotations": {"dag_id": "etl", "task_id": "load", "run_id": "manual__1", "try_number": "1", "airflow-requeue.dev/max-retries": "3"},
    "labels": {"airflow-worker": "7", "kubernetes_executor": "True", "team": "data"}
  },
  "spec": {
    "serviceAccountName": "airflow-worker", "restartPolicy": "Never", "futureSpec": {"x": 9223372036854775807},
    "schedulingGates": [{"name": "example.com/own"}],
    "affinity": {"nodeAffinity": {
      "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "pool", "operator": "In", "values": ["a"]}]}]},
      "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "preference": {"matchExpressions": [{"key": "spot", "operator": "Exists"}]}}]
    }, "podAntiAffinity": {"future": 1}},
    "containers": [{"name": "base", "image": "x", "resources": {"limits": {"cpu": 1, "memory": "1Gi"}}, "args": ["airflow", "tasks", "run"]}]
  },
  "status": {"phase": "Pending"}
}`

func TestAReplacementIsTheJobSpecWithOurStamps(t *testing.T) {
	s := sealer(t, keys("a", "a"))
	old := admitted(t, s, []byte(oddPod))
	raw, err := s.Replacement(old, nextOf(1), "etl-load-x7k2m9qa-r1")
	require.NoError(t, err)

	want := exact(t, []byte(oddPod))
	delete(want, "status")
	meta := want["metadata"].(map[string]any)
	for _, field := range []string{"uid", "creationTimestamp", "generation", "resourceVersion", "managedFields", "selfLink"} {
		delete(meta, field)
	}
	meta["name"] = "etl-load-x7k2m9qa-r1"
	meta["finalizers"] = []any{"example.com/own", "airflow-requeue.dev/hold"}
	labels := meta["labels"].(map[string]any)
	delete(labels, "airflow-worker")
	labels["airflow_pod_revoked"], labels["airflow-requeue.dev/tracked"] = "requeue-hold", "prod"
	annotations := meta["annotations"].(map[string]any)
	for name, value := range map[string]string{
		"attempt": "1", "origin": "etl-load-x7k2m9qa", "requeue-of": "uid-0",
		"queued-dttm": "2026-03-01T11:58:58Z", "not-before": "2026-03-01T12:00:05Z",
		"job-spec": old.Annotations[AnnotationJobSpec], "job-spec-checksum": old.Annotations[AnnotationJobSpecChecksum],
	} {
		annotations["airflow-requeue.dev/"+name] = value
	}
	spec := want["spec"].(map[string]any)
	spec["schedulingGates"] = []any{map[string]any{"name": "example.com/own"}, map[string]any{"name": "airflow-requeue.dev/hold"}}
	nodes := spec["affinity"].(map[string]any)["nodeAffinity"].(map[string]any)
	preferred := "preferredDuringSchedulingIgnoredDuringExecution"
	nodes[preferred] = append(nodes[preferred].([]any), exact(t, []byte(`{"weight": 100, "preference": {"matchFields": [
		{"key": "metadata.name", "operator": "NotIn", "values": ["node-1"]}]}}`)))

	got := exact(t, raw)
	signature := got["metadata"].(map[string]any)["annotations"].(map[string]any)[AnnotationSignature]
	require.Regexp(t, "^v1:a:[0-9a-f]{64}$", signature)
	annotations[AnnotationSignature] = signature
	require.Equal(t, want, got)
}

func TestAReplacementIsHeldGatedUncommittedAndOutOfAirflowsSight(t *testing.T) {
	s := sealer(t, keys("a", "a"))
	for _, version := range []string{"2.10.5", "3.3.2"} {
		for name, submitted := range airflowPods(t, version) {
			t.Run(version+" "+name, func(t *testing.T) {
				old := admitted(t, s, submitted)
				detached(&scene{Input: Input{Pod: old}})
				old.Annotations[AnnotationReason] = "Evicted"
				raw, err := s.Replacement(old, nextOf(1), ReplacementName(old, nextOf(1), false))
				require.NoError(t, err)
				pod := stored(t, raw, "uid-1")

				require.True(t, Held(pod) && Tracked(pod) && Gated(pod) && hasFinalizer(pod))
				require.False(t, Committed(pod) || Detached(pod) || Attached(pod))
				require.NotContains(t, pod.Labels, LabelWorker)
				require.NotContains(t, pod.Labels, LabelExecutorDone)
				require.NotContains(t, pod.Annotations, AnnotationReason)
				require.Equal(t, "uid-0", RequeueOf(pod))
				require.Equal(t, old.Spec.Containers, pod.Spec.Containers)
				require.Equal(t, s.Verify(old), s.Verify(pod), "the same job, sealed")
				require.Equal(t, SealValid, s.Verify(pod).State)
			})
		}
	}
}

func TestAChainOfReplacementsKeepsOriginAndJobSpec(t *testing.T) {
	s := sealer(t, keys("a", "a"))
	first := admitted(t, s, plainPod(t))
	old := first
	for attempt := 1; attempt <= 12; attempt++ {
		name := ReplacementName(old, nextOf(attempt), false)
		require.Equal(t, first.Name+"-r"+strconv.Itoa(attempt), name, "names do not grow with the chain")
		raw, err := s.Replacement(old, nextOf(attempt), name)
		require.NoError(t, err)
		pod := stored(t, raw, old.UID+"+")

		require.Equal(t, s.Verify(first), s.Verify(pod))
		require.Equal(t, string(old.UID), RequeueOf(pod))
		require.Equal(t, attempt, Attempt(pod))
		require.Equal(t, first.Name, pod.Annotations[AnnotationOrigin])
		require.Equal(t, first.Annotations[AnnotationJobSpec], pod.Annotations[AnnotationJobSpec])
		require.Len(t, pod.Finalizers, 1)
		require.Len(t, pod.Spec.SchedulingGates, 1, "gates do not pile up")
		require.Len(t, pod.Spec.Affinity.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution, 1, "only the last failed node is avoided")
		require.Equal(t, first.Spec.Containers, pod.Spec.Containers)
		old = pod
	}
}

func TestAReplacementThatNeedNotAvoidANodeHasNoAffinity(t *testing.T) {
	s := sealer(t, keys("a", "a"))
	next := nextOf(1)
	next.AvoidNode = ""
	raw, err := s.Replacement(admitted(t, s, plainPod(t)), next, "x-r1")
	require.NoError(t, err)
	require.Nil(t, stored(t, raw, "uid-1").Spec.Affinity)
}

func TestAReplacementIsTheSameEachTime(t *testing.T) {
	s := sealer(t, keys("a", "a"))
	old := admitted(t, s, plainPod(t))
	before := old.DeepCopy()
	first, err := s.Replacement(old, nextOf(1), "x-r1")
	require.NoError(t, err)
	second, err := s.Replacement(old, nextOf(1), "x-r1")
	require.NoError(t, err)
	require.Equal(t, first, second)
	require.Equal(t, before, old, "the old pod stays as it is")
}

func TestAReplacementIsSignedWithTheCurrentKey(t *testing.T) {
	old := admitted(t, sealer(t, keys("a", "a")), plainPod(t))
	s := sealer(t, keys("b", "a", "b"))
	raw, err := s.Replacement(old, nextOf(1), "x-r1")
	require.NoError(t, err)
	pod := stored(t, raw, "uid-1")
	require.True(t, strings.HasPrefix(pod.Annotations[AnnotationSignature], "v1:b:"))
	require.Equal(t, SealValid, s.Verify(pod).State)
}

func TestAReplacementThatCannotBeMadeSaysWhy(t *testing.T) {
	s := sealer(t, keys("a", "a"))
	packed := func(spec string) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Annotations[AnnotationJobSpec], p.Annotations[AnnotationJobSpecChecksum] = s.Pack([]byte(spec))
		}
	}
	for _, c := range []struct {
		name   string
		sealer *Sealer
		change func(*corev1.Pod)
		want   string
	}{
		{"no job spec", s, func(p *corev1.Pod) { delete(p.Annotations, AnnotationJobSpec) }, "unpacking the job spec: it is not what the checksum says"},
		{"a job spec that is no JSON", s, packed("x"), "decoding the job spec: "},
		{"a job spec that is no object", s, packed("[]"), "decoding the job spec: "},
		{"gates that are no list", s, packed(`{"spec":{"schedulingGates":{}}}`), "building the replacement: "},
		{"an affinity that is no object", s, packed(`{"spec":{"affinity":1}}`), "building the replacement: "},
		{"no key to sign with", sealer(t, Keys{}), func(*corev1.Pod) {}, "signing the stamps: no current key"},
	} {
		t.Run(c.name, func(t *testing.T) {
			old := admitted(t, s, plainPod(t))
			c.change(old)
			_, err := c.sealer.Replacement(old, nextOf(1), "x-r1")
			require.ErrorContains(t, err, c.want)
		})
	}
}

func TestReplacementNames(t *testing.T) {
	long := "a-dag-with-a-name-a-dag-with-a-name-a-dag-with-a-name-k3v9x0a7"
	for _, c := range []struct {
		name, origin string
		attempt      int
		taken        bool
		want         string
	}{
		{"the first pod's name and the attempt", podName, 1, false, podName + "-r1"},
		{"a name that a stranger has taken gets a hash of the old pod's UID", podName, 1, true, podName + "-r1-72faa1a2"},
		{"a long name is cut at the front: its end is the random part", long, 1, false, "dag-with-a-name-a-dag-with-a-name-a-dag-with-a-name-k3v9x0a7-r1"},
		{"a long name that is taken is cut for the hash too", long, 12, true, "name-a-dag-with-a-name-a-dag-with-a-name-k3v9x0a7-r12-72faa1a2"},
		{"a name that just fits stays", strings.Repeat("a", 60), 1, false, strings.Repeat("a", 60) + "-r1"},
		{"a name that just does not fit loses a character", strings.Repeat("b", 61), 1, false, strings.Repeat("b", 60) + "-r1"},
		{"a name with dots is cut within a part", strings.Repeat("a", 30) + "." + strings.Repeat("b", 31), 1, false,
			strings.Repeat("a", 28) + "." + strings.Repeat("b", 31) + "-r1"},
		{"a name that is cut right after a dot begins with a letter", strings.Repeat("a", 10) + "." + strings.Repeat("b", 60), 1, false,
			strings.Repeat("b", 60) + "-r1"},
		{"a name that is cut before a dot begins with a letter", strings.Repeat("a", 10) + "." + strings.Repeat("b", 59), 1, false,
			strings.Repeat("b", 59) + "-r1"},
		{"a name that is cut within dashes begins with a letter", strings.Repeat("a", 10) + "----" + strings.Repeat("b", 57), 1, false,
			strings.Repeat("b", 57) + "-r1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			old := heldPod("another", "uid-0")
			old.Annotations[AnnotationOrigin] = c.origin
			got := ReplacementName(old, Next{Attempt: c.attempt}, c.taken)
			require.Equal(t, c.want, got)
			require.Empty(t, content.IsDNS1123Subdomain(got))
		})
	}
}

func TestEveryReplacementNameIsValidAndFitsAHostname(t *testing.T) {
	var names []string
	for _, version := range []string{"2.10.5", "3.3.2"} {
		for _, submitted := range airflowPods(t, version) {
			names = append(names, stored(t, submitted, "").Name)
		}
	}
	for n := 1; n <= 253; n++ {
		for _, part := range []string{"a", "a-", "a.", "a-b.c--d0"} {
			name := strings.Trim(strings.Repeat(part, n)[:n], "-.")
			if len(content.IsDNS1123Subdomain(name)) == 0 {
				names = append(names, name)
			}
		}
	}
	for _, name := range names {
		seen := []string{}
		for _, attempt := range []int{1, 2, 9, 10, 99, 1_000_000} {
			for _, taken := range []bool{false, true} {
				old := heldPod("another", "uid-0")
				old.Annotations[AnnotationOrigin] = name
				got := ReplacementName(old, Next{Attempt: attempt}, taken)
				require.Empty(t, content.IsDNS1123Subdomain(got), got)
				require.LessOrEqual(t, len(got), 63, got)
				require.False(t, slices.Contains(seen, got), "each attempt has a name of its own")
				seen = append(seen, got)
			}
		}
	}
}
