package mutate

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	jsonpatch "gopkg.in/evanphx/json-patch.v4" // what the API server applies patches with

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// reviewOf is a CREATE of the object, whatever it is.
func reviewOf(object []byte, user string) string {
	return fmt.Sprintf(`{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{"uid":"1","kind":{"version":"v1","kind":"Pod"},`+
		`"namespace":"airflow","operation":"CREATE","userInfo":{"username":%q},"object":%s}}`, user, object)
}

// admit posts the object and returns it with the patch applied; ok is false where it was refused with a 400.
func admit(tb testing.TB, s *served, object []byte, user string) (patched []byte, ok bool) {
	tb.Helper()
	body := reviewOf(object, user)
	if recorder := s.post(body); recorder.Code == http.StatusBadRequest {
		return nil, false
	}
	answer := s.review(tb, body)
	require.True(tb, answer.Response.Allowed)
	for _, o := range operations(tb, answer) {
		require.Regexp(tb, `^/metadata/(labels|annotations|finalizers)(/|$)|^/spec/schedulingGates(/|$)`, o.Path)
	}
	patch, err := jsonpatch.DecodePatch(answer.Response.Patch)
	require.NoError(tb, err)
	patched, err = patch.Apply(object)
	require.NoError(tb, err, "patch %s", answer.Response.Patch)
	return patched, true
}

// assertOnlyStampsChange holds for every object that is taken for a pod.
func assertOnlyStampsChange(tb testing.TB, s *served, object []byte, user string) {
	tb.Helper()
	internal := s.counted(tb, admissions)[string(Internal)]
	patched, ok := admit(tb, s, object, user)
	switch {
	case !ok:
		return
	case s.counted(tb, admissions)[string(Internal)] > internal: // a number beyond any float
		assert.Equal(tb, exactly(tb, object), exactly(tb, patched))
		return
	}
	before, _ := peel(exactly(tb, object))
	after, stamps := peel(exactly(tb, patched))
	assert.Equal(tb, before, after, "apart from stamps nothing changes")
	if executorPod(after) && user != watcherUser { // whose pod with an unknown key passes as it came
		// A stranger's pod keeps its gates, so that it does not run.
		rest := slices.DeleteFunc(slices.Clone(stamps), func(s string) bool { return s == "gate hold" && user != schedulerUser })
		assert.Contains(tb, []string{"", s.stamps}, strings.Join(rest, ", "), "all stamps or none")
	}
	again, ok := admit(tb, s, patched, user)
	require.True(tb, ok)
	assert.Equal(tb, exactly(tb, patched), exactly(tb, again), "admitted again")
}

const allStamps = "annotation attempt, annotation job-spec, annotation job-spec-checksum, annotation origin, annotation signature, " +
	"finalizer hold, label airflow_pod_revoked, label tracked"

// observedStamps are those of observe mode: nothing that keeps the pod, or keeps Airflow from seeing it.
const observedStamps = "annotation attempt, annotation job-spec, annotation job-spec-checksum, annotation mode, annotation origin, " +
	"annotation signature, label tracked"

// exactly decodes JSON without a change to its numbers.
func exactly(tb testing.TB, raw []byte) map[string]any {
	tb.Helper()
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber()
	var object map[string]any
	require.NoError(tb, decoder.Decode(&object))
	return object
}

// peel takes all stamps off a pod, and names them. It shares no code with what it tests.
func peel(object map[string]any) (rest map[string]any, stamps []string) {
	known := map[string][]string{
		"label": {"tracked", "replaced"},
		"annotation": strings.Fields("attempt job-spec job-spec-checksum signature origin requeue-of queued-dttm not-before committed " +
			"detached-airflow-worker reason message waiting-since released-at discarded replaced-at undoing mode"),
	}
	metadata, _ := object["metadata"].(map[string]any)
	for kind, key := range map[string]string{"label": "labels", "annotation": "annotations"} {
		fields, _ := metadata[key].(map[string]any)
		for name, value := range fields {
			own, ours := strings.CutPrefix(name, "airflow-requeue.dev/")
			if ours && slices.Contains(known[kind], own) || kind == "label" && name == "airflow_pod_revoked" && value == "requeue-hold" {
				stamps = append(stamps, kind+" "+own)
				delete(fields, name)
			}
		}
		if fields != nil && len(fields) == 0 {
			delete(metadata, key)
		}
	}
	weed := func(parent map[string]any, key, stamp string, ours func(any) bool) {
		list, ok := parent[key].([]any)
		rest := slices.DeleteFunc(slices.Clone(list), ours)
		for range len(list) - len(rest) {
			stamps = append(stamps, stamp)
		}
		if parent[key] = rest; len(rest) == 0 && ok || parent[key] == nil {
			delete(parent, key)
		}
	}
	if _, ok := metadata["finalizers"].([]any); ok {
		weed(metadata, "finalizers", "finalizer hold", func(f any) bool { return f == "airflow-requeue.dev/hold" })
	}
	if spec, ok := object["spec"].(map[string]any); ok {
		if _, ok := spec["schedulingGates"].([]any); ok {
			weed(spec, "schedulingGates", "gate hold", func(g any) bool {
				gate, _ := g.(map[string]any)
				return gate["name"] == "airflow-requeue.dev/hold"
			})
		}
	}
	slices.Sort(stamps)
	return object, stamps
}

func executorPod(object map[string]any) bool {
	metadata, _ := object["metadata"].(map[string]any)
	labels, _ := metadata["labels"].(map[string]any)
	return labels["kubernetes_executor"] == "True"
}

func TestOnlyStampsChangeOnRandomPods(t *testing.T) {
	t.Run("enforcing", func(t *testing.T) {
		testRandomPods(t, serve(t, newAdmission(t).marker.Mark, true), Held)
	})
	t.Run("observing", func(t *testing.T) {
		marker := newAdmission(t).marker
		marker.Observe = true
		s := serve(t, marker.Mark, true)
		s.stamps = observedStamps
		testRandomPods(t, s, Observed)
		assert.Zero(t, s.counted(t, admissions)[string(Held)])
	})
}

func testRandomPods(t *testing.T, s *served, stamped Outcome) {
	t.Helper()
	seed := uint64(20260301)
	g := generator{rand.New(rand.NewPCG(seed, seed))}
	for range 2000 {
		object := g.pod()
		user := g.oneOf(schedulerUser, schedulerUser, schedulerUser, watcherUser, "anna")
		assertOnlyStampsChange(t, s, []byte(object), user)
		if t.Failed() {
			t.Fatalf("user %s, pod %s", user, object)
		}
	}
	for _, outcome := range []Outcome{stamped, NotExecutorPod, OtherUser, Malformed, Callback, Revoked, NoName, NodeName, Kueue, RetriesOff, UnsupportedAirflow, NotTaskInstance} {
		assert.Greater(t, s.counted(t, admissions)[string(outcome)], 20, "the generator is to reach %s", outcome)
	}
}

// FuzzReview looks for an object that is changed in anything but its stamps.
func FuzzReview(f *testing.F) {
	s := serve(f, newAdmission(f).marker.Mark, true)
	g := generator{rand.New(rand.NewPCG(1, 1))}
	for range 20 {
		f.Add([]byte(g.pod()), schedulerUser)
	}
	f.Fuzz(func(t *testing.T, object []byte, user string) {
		if json.Valid(object) && json.Valid([]byte(fmt.Sprintf("%q", user))) {
			assertOnlyStampsChange(t, s, object, user)
		}
	})
}

// FuzzHandler looks for a body that is answered with anything but an allowance or a 4xx.
func FuzzHandler(f *testing.F) {
	s := serve(f, newAdmission(f).marker.Mark, true)
	f.Add([]byte(recorded(f)))
	f.Fuzz(func(t *testing.T, body []byte) {
		if recorder := s.post(string(body)); recorder.Code != http.StatusBadRequest {
			assert.True(t, s.review(t, string(body)).Response.Allowed)
		}
	})
}

// generator makes the JSON of pods as no API server would send them.
type generator struct{ *rand.Rand }

func (g generator) oneOf(choices ...string) string { return choices[g.IntN(len(choices))] }

func (g generator) often(s string) string { return g.sometimes(6, s) }

// sometimes is one of seven with n of them taken.
func (g generator) sometimes(n int, s string) string {
	if g.IntN(7) < n {
		return s
	}
	return ""
}

func (g generator) object(fields ...string) string {
	fields = slices.DeleteFunc(fields, func(f string) bool { return f == "" })
	g.Shuffle(len(fields), func(i, j int) { fields[i], fields[j] = fields[j], fields[i] })
	return "{" + strings.Join(fields, ",") + "}"
}

func (g generator) pod() string {
	gate := fmt.Sprintf(`{"name":%q}`, requeue.SchedulingGate)
	return g.object(`"kind":"Pod"`, `"apiVersion":"v1"`, g.field(2), g.field(2), g.sometimes(1, `"status":`+g.value(2)),
		`"metadata":`+g.object(g.often(`"name":"etl-load-x7k2m9qa"`), g.field(2), g.field(2), g.labels(), g.annotations(),
			g.sometimes(2, `"finalizers":`+g.list(fmt.Sprintf("%q", requeue.Finalizer), `"example.com/other"`))),
		g.sometimes(1, `"metadata":`+g.object(g.often(`"name":"twice"`), g.labels(), g.annotations())),
		g.often(`"spec":`+g.object(g.field(3), g.field(3), g.field(3), g.sometimes(1, `"nodeName":"node-1"`),
			g.sometimes(2, `"schedulingGates":`+g.list(gate, `{"name":"example.com/gate"}`, `"odd"`)),
			g.sometimes(3, `"serviceAccountName":"airflow-worker"`))),
	)
}

func (g generator) labels() string {
	return g.often(`"labels":` + g.object(g.often(`"kubernetes_executor":"True"`), `"airflow-worker":"1"`,
		g.sometimes(4, `"airflow_version":`+g.oneOf(`"2.10.3"`, `"3.3.2"`, `"main"`)), g.pair(), g.pair(),
		g.sometimes(1, `"airflow-requeue.dev/tracked":"forged"`), g.sometimes(1, `"airflow_pod_revoked":"requeue-hold"`),
		g.sometimes(1, `"airflow_pod_revoked":"True"`), g.sometimes(1, `"kueue.x-k8s.io/queue-name":"batch"`),
		g.rarely(`"odd":`+g.value(1))))
}

func (g generator) annotations() string {
	return g.often(`"annotations":` + g.object(g.often(`"dag_id":"etl"`), `"task_id":"load"`, `"run_id":"manual__1"`, `"try_number":"1"`,
		g.pair(), g.pair(), g.sometimes(1, `"airflow-requeue.dev/attempt":"forged"`), g.sometimes(1, `"airflow-requeue.dev/signature":"v1:a:00"`),
		g.sometimes(1, `"airflow-requeue.dev/max-retries":`+g.oneOf(`"0"`, `"3"`, `"many"`)), g.sometimes(1, `"callback_id":"7"`),
		g.rarely(`"odd":`+g.value(1))))
}

func (g generator) rarely(s string) string {
	if g.IntN(20) == 0 {
		return s
	}
	return ""
}

// list is of some of the choices, in any order and number.
func (g generator) list(choices ...string) string {
	items := make([]string, g.IntN(4))
	for i := range items {
		items[i] = g.oneOf(choices...)
	}
	return "[" + strings.Join(items, ",") + "]"
}

func (g generator) pair() string { return g.sometimes(3, g.text()+":"+g.text()) }

func (g generator) field(depth int) string { return g.sometimes(3, g.text()+":"+g.value(depth)) }

func (g generator) text() string {
	return g.oneOf(`"a"`, `"b"`, `""`, `"a/b~c"`, `"<a href='x'>&amp;"`, `"\u2028\u2029\u0000\ufffd"`, `"\ud800"`, `"ключ \ud83d\ude00"`, `"\"\\\/\b"`,
		`"airflow-requeue.dev/backoff"`, `"~1~0"`, `"-"`, `"0"`)
}

func (g generator) value(depth int) string {
	switch n := g.IntN(8); {
	case depth > 0 && n == 0:
		return g.object(g.field(depth-1), g.field(depth-1), g.field(depth-1))
	case depth > 0 && n == 1:
		return g.list(g.value(depth-1), g.value(depth-1), g.value(depth-1))
	case n < 4:
		return g.text()
	case n == 4:
		return g.oneOf("null", "true", "false", "{}", "[]")
	}
	return g.oneOf("0", "-0", "1", "1e3", "1.0", "1E-7", "0.1", "9007199254740993", "123456789012345678901234567890", "-0.000000001")
}
