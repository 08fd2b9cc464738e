package mutate

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admission/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// served is a webhook as HTTP clients see it.
type served struct {
	http.Handler
	registry *prometheus.Registry
	log      *bytes.Buffer
	stamps   string // what a pod is stamped with, all of it
}

func serve(tb testing.TB, mark func(*unstructured.Unstructured, Request) Result, ready bool) *served {
	tb.Helper()
	s := &served{registry: prometheus.NewRegistry(), log: &bytes.Buffer{}, stamps: allStamps}
	s.Handler = Handler(&Webhook{
		Mark:    mark,
		Ready:   func(namespace string) bool { return ready && namespace == "airflow" },
		Metrics: NewMetrics(s.registry),
		Log:     slog.New(slog.NewTextHandler(s.log, nil)),
	})
	return s
}

func (s *served) post(body string) *httptest.ResponseRecorder {
	request := httptest.NewRequest(http.MethodPost, Path, strings.NewReader(body))
	request.Header.Set("Content-Type", "application/json")
	recorder := httptest.NewRecorder()
	s.ServeHTTP(recorder, request)
	return recorder
}

// review posts an admission review and returns the answer, which must be one.
func (s *served) review(tb testing.TB, body string) *admissionv1.AdmissionReview {
	tb.Helper()
	recorder := s.post(body)
	require.Equal(tb, http.StatusOK, recorder.Code, recorder.Body)
	assert.Equal(tb, "application/json", recorder.Header().Get("Content-Type"))
	var answer admissionv1.AdmissionReview
	require.NoError(tb, json.Unmarshal(recorder.Body.Bytes(), &answer))
	require.NotNil(tb, answer.Response)
	return &answer
}

// counted are the counters that are not zero, by their one label.
func (s *served) counted(tb testing.TB, name string) map[string]int {
	tb.Helper()
	families, err := s.registry.Gather()
	require.NoError(tb, err)
	counts := map[string]int{}
	for _, family := range families {
		if family.GetName() == name {
			for _, m := range family.GetMetric() {
				if m.GetCounter().GetValue() > 0 {
					counts[labelOf(m)] = int(m.GetCounter().GetValue())
				}
			}
		}
	}
	return counts
}

func labelOf(m *dto.Metric) string { return m.GetLabel()[0].GetValue() }

const admissions = "airflow_requeue_admissions_total"

// recorded is what a real API server sent for a pod of Airflow's.
func recorded(tb testing.TB) string {
	tb.Helper()
	raw, err := os.ReadFile("testdata/review.json")
	require.NoError(tb, err)
	return string(raw)
}

func TestHandlerAnswersWhatAnAPIServerSends(t *testing.T) {
	s := serve(t, newAdmission(t).marker.Mark, true)

	answer := s.review(t, recorded(t))

	assert.Equal(t, "admission.k8s.io/v1", answer.APIVersion)
	assert.Equal(t, "AdmissionReview", answer.Kind)
	assert.Equal(t, "e9e4d3a1-ad72-4bea-b51f-898a5a6a7f19", string(answer.Response.UID))
	assert.True(t, answer.Response.Allowed)
	assert.Equal(t, admissionv1.PatchTypeJSONPatch, *answer.Response.PatchType)
	var added []string
	for _, o := range operations(t, answer) {
		added = append(added, o.Op+" "+o.Path)
	}
	assert.ElementsMatch(t, []string{
		"add /metadata/labels/airflow_pod_revoked",
		"add /metadata/labels/airflow-requeue.dev~1tracked",
		"add /metadata/finalizers",
		"add /metadata/annotations/airflow-requeue.dev~1attempt",
		"add /metadata/annotations/airflow-requeue.dev~1origin",
		"add /metadata/annotations/airflow-requeue.dev~1job-spec",
		"add /metadata/annotations/airflow-requeue.dev~1job-spec-checksum",
		"add /metadata/annotations/airflow-requeue.dev~1signature",
	}, added)
	assert.Equal(t, map[string]int{"Held": 1}, s.counted(t, admissions))
	assert.Empty(t, s.log)
}

type operation struct {
	Op, Path string
	Value    any
}

func operations(tb testing.TB, answer *admissionv1.AdmissionReview) (patch []operation) {
	tb.Helper()
	require.NoError(tb, json.Unmarshal(answer.Response.Patch, &patch))
	return patch
}

func TestHandlerAlwaysAllows(t *testing.T) {
	replace := strings.NewReplacer
	for _, c := range []struct {
		name   string
		change *strings.Replacer
		want   Outcome
	}{
		{"an update", replace(`"operation":"CREATE"`, `"operation":"UPDATE"`), NotCreate},
		{"a delete, which has no object", replace(`"operation":"CREATE"`, `"operation":"DELETE"`, `"object":{"kind":"Pod"`, `"oldObject":{"kind":"Pod"`), NotCreate},
		{"an operation that nobody knows", replace(`"operation":"CREATE"`, `"operation":"RESIZE"`), NotCreate},
		{"a review without an operation", replace(`"operation":"CREATE",`, ``), NotCreate},
		{"a review of the older version", replace(`admission.k8s.io/v1`, `admission.k8s.io/v1beta1`), Held},
		{"a review without a user", replace(`"userInfo"`, `"stranger"`), OtherUser},
		{"a review without a uid", replace(`"uid"`, `"diu"`), Held},
		{"a review without a namespace", replace(`"etl-load-lymugwh2","namespace":"airflow","operation"`, `"","operation"`), OtherNamespace},
		{"fields that nobody knows", replace(`"request":{`, `"novel":[1],"request":{"novel":{"a":null},`), Held},
		{"a pod without metadata", replace(`"metadata":{"name"`, `"atadatem":{"name"`), NotExecutorPod},
		{"a pod without a spec", replace(`"spec":{"vol`, `"ceps":{"vol`), Held},
		{"metadata that is a number", replace(`"metadata":{"name"`, `"metadata":1,"atadatem":{"name"`), NotExecutorPod},
		{"metadata that is null", replace(`"metadata":{"name"`, `"metadata":null,"atadatem":{"name"`), NotExecutorPod},
		{"a spec that is a list", replace(`"spec":{"vol`, `"spec":[],"ceps":{"vol`), NotTaskInstance},
		{"a name that is a number", replace(`"metadata":{"name":"etl-load-lymugwh2"`, `"metadata":{"name":7`), NoName},
		{"annotations that are null", replace(`"annotations":{`, `"annotations":null,"snoitatonna":{`), Malformed},
		{"a number beyond any float", replace(`"spec":{"vol`, `"novel":1e400,"spec":{"vol`), Internal},
		{"a pod twice, and the second is none", replace(`"object":{`, `"object":{"kind":"Pod"},"object":{"kind":"Pod","also":"Pod"},"tcejbo":{`), NotExecutorPod},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := serve(t, newAdmission(t).marker.Mark, true)
			body := c.change.Replace(recorded(t))
			require.NotEqual(t, recorded(t), body)

			answer := s.review(t, body)

			assert.True(t, answer.Response.Allowed)
			assert.Equal(t, map[string]int{string(c.want): 1}, s.counted(t, admissions))
			if c.want != Held {
				assert.Equal(t, "[]", string(answer.Response.Patch))
			}
		})
	}
}

func TestHandlerRefusesWhatIsNoReviewOfAPod(t *testing.T) {
	review := recorded(t)
	for _, c := range []struct {
		name, method, contentType, body string
		code                            int
		says                            string
	}{
		{"another method", http.MethodGet, "application/json", review, 405, `method "GET": admission reviews are posted`},
		{"no content type", http.MethodPost, "", review, 415, "content type is not application/json"},
		{"another content type", http.MethodPost, "application/yaml", review, 415, "content type is not application/json"},
		{"a content type that is none", http.MethodPost, ";;", review, 415, "content type is not application/json"},
		{"no body", http.MethodPost, "application/json", "", 400, "body is empty"},
		{"malformed JSON", http.MethodPost, "application/json", review[:len(review)-1], 400, "body is not the JSON of an admission review"},
		{"JSON with more after it", http.MethodPost, "application/json", review + "{}", 400, "body is not the JSON of an admission review"},
		{"YAML", http.MethodPost, "application/json", "kind: AdmissionReview", 400, "body is not the JSON of an admission review"},
		{"a list", http.MethodPost, "application/json", "[]", 400, "body is not the JSON of an admission review"},
		{"null", http.MethodPost, "application/json", "null", 400, "body is not an AdmissionReview of admission.k8s.io/v1 or v1beta1"},
		{"another kind", http.MethodPost, "application/json", `{"kind":"Pod","apiVersion":"v1"}`, 400, "body is not an AdmissionReview of admission.k8s.io/v1 or v1beta1"},
		{"another version", http.MethodPost, "application/json", `{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v2"}`, 400, "body is not an AdmissionReview of admission.k8s.io/v1 or v1beta1"},
		{"no request", http.MethodPost, "application/json", `{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1"}`, 400, "admission review has no request"},
		{"a request in another case", http.MethodPost, "application/json", `{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","Request":{"kind":{"kind":"Pod"}}}`, 400, "admission review has no request"},
		{"a review of another kind", http.MethodPost, "application/json", strings.ReplaceAll(review, `"kind":"Pod"`, `"kind":"Job"`), 400, "admission review is not of a Pod: check the rules of the webhook configuration"},
		{"another group's pod", http.MethodPost, "application/json", strings.ReplaceAll(review, `"group":""`, `"group":"metrics.k8s.io"`), 400, "admission review is not of a Pod: check the rules of the webhook configuration"},
		{"another object than the review says", http.MethodPost, "application/json", strings.ReplaceAll(review, `{"kind":"Pod"`, `{"kind":"Job"`), 400, "object of the admission review is not a Pod"},
		{"no object", http.MethodPost, "application/json", strings.ReplaceAll(review, `"object":{`, `"objects":{`), 400, "object of the admission review is not a Pod"},
		{"an object that is a string", http.MethodPost, "application/json", strings.ReplaceAll(review, `"object":{`, `"object":"Pod","objects":{`), 400, "body is not the JSON of an admission review"},
		{"a body beyond 10 MiB", http.MethodPost, "application/json", review + strings.Repeat(" ", 10<<20), 413, "body is larger than 10485760 bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := serve(t, newAdmission(t).marker.Mark, true)
			request := httptest.NewRequest(c.method, Path, strings.NewReader(c.body))
			request.Header.Set("Content-Type", c.contentType)
			recorder := httptest.NewRecorder()

			s.ServeHTTP(recorder, request)

			assert.Equal(t, c.code, recorder.Code)
			assert.Equal(t, c.says+"\n", recorder.Body.String())
			assert.Equal(t, map[string]int{fmt.Sprint(c.code): 1}, s.counted(t, "airflow_requeue_requests_refused_total"))
			assert.Empty(t, s.counted(t, admissions))
			assert.Equal(t, 1, strings.Count(s.log.String(), "\n"), s.log)
		})
	}
	t.Run("another path", func(t *testing.T) {
		recorder := httptest.NewRecorder()
		serve(t, newAdmission(t).marker.Mark, true).ServeHTTP(recorder, httptest.NewRequest(http.MethodPost, "/", strings.NewReader(review)))
		assert.Equal(t, http.StatusNotFound, recorder.Code)
	})
	t.Run("a body that ends early", func(t *testing.T) {
		request := httptest.NewRequest(http.MethodPost, Path, io.MultiReader(strings.NewReader(review), brokenReader{}))
		request.Header.Set("Content-Type", "application/json")
		recorder := httptest.NewRecorder()
		serve(t, newAdmission(t).marker.Mark, true).ServeHTTP(recorder, request)
		assert.Equal(t, http.StatusBadRequest, recorder.Code)
	})
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func TestHandlerAllowsWhenMarkPanics(t *testing.T) {
	for name, c := range map[string]struct {
		panics func()
		says   string
	}{
		"at runtime, which says what": {func() { _ = strings.Fields("")[len(os.Args)] }, `error="panic: runtime error: index out of range [`},
		"with what may be a secret":   {func() { panic("secret") }, `error="panic: string"`},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, func(pod *unstructured.Unstructured, _ Request) Result {
				pod.SetLabels(nil)
				c.panics()
				return Result{Outcome: Held}
			}, true)

			answer := s.review(t, recorded(t))

			assert.True(t, answer.Response.Allowed)
			assert.Equal(t, "[]", string(answer.Response.Patch))
			assert.Equal(t, map[string]int{"Internal": 1}, s.counted(t, admissions))
			assert.Contains(t, s.log.String(), `level=WARN msg="pod admitted" outcome=Internal namespace=airflow pod=etl-load-lymugwh2 `+c.says)
		})
	}
}

func TestHandlerSaysOnceOfEachAirflowThatItIsNotSupported(t *testing.T) {
	s := serve(t, newAdmission(t).marker.Mark, true)
	of := func(version string) string {
		body := strings.ReplaceAll(recorded(t), `"kubernetes_executor":"True"`, `"kubernetes_executor":"True","airflow_version":"`+version+`"`)
		require.NotEqual(t, recorded(t), body)
		return body
	}
	for _, version := range []string{"2.9.3", "2.10.3", "2.9.3", "2.9.3-composer"} {
		assert.Equal(t, "[]", string(s.review(t, of(version)).Response.Patch))
	}

	assert.Equal(t, map[string]int{"UnsupportedAirflow": 4}, s.counted(t, admissions))
	const line = `level=WARN msg="pods of an airflow that is not supported are not held" outcome=UnsupportedAirflow namespace=airflow pod=etl-load-lymugwh2 airflow=%s oldest=2.10.4`
	assert.Equal(t, 2, strings.Count(s.log.String(), "\n"), s.log)
	assert.Contains(t, s.log.String(), fmt.Sprintf(line, "2.9.3"))
	assert.Contains(t, s.log.String(), fmt.Sprintf(line, "2.10.3"))
}

func TestHandlerPassesWarningsAndReadinessOn(t *testing.T) {
	for _, ready := range []bool{false, true} {
		s := serve(t, func(_ *unstructured.Unstructured, req Request) Result {
			assert.Equal(t, Request{Namespace: "airflow", User: schedulerUser, LeaderReady: ready,
				Groups: []string{"system:serviceaccounts", "system:serviceaccounts:airflow", "system:authenticated"}}, req)
			return Result{Outcome: NoLeader, Warnings: []string{"careful"}}
		}, ready)
		assert.Equal(t, []string{"careful"}, s.review(t, recorded(t)).Response.Warnings)
	}
}

func TestHandlerAnswersADryRunAlikeAndDoesNotCountIt(t *testing.T) {
	s := serve(t, newAdmission(t).marker.Mark, true)
	wet := s.review(t, recorded(t))
	require.Equal(t, map[string]int{"Held": 1}, s.counted(t, admissions))

	dry := s.review(t, strings.Replace(recorded(t), `"dryRun":false`, `"dryRun":true`, 1))

	assert.ElementsMatch(t, operations(t, wet), operations(t, dry))
	assert.Equal(t, map[string]int{"Held": 1}, s.counted(t, admissions))
}

func TestEveryOutcomeIsCountedFromTheStart(t *testing.T) {
	registry := prometheus.NewRegistry()
	NewMetrics(registry)
	families, err := registry.Gather()
	require.NoError(t, err)
	var outcomes []string
	for _, family := range families {
		if family.GetName() == admissions {
			for _, m := range family.GetMetric() {
				outcomes = append(outcomes, labelOf(m))
			}
		}
	}
	var want []string
	for _, o := range Outcomes() {
		want = append(want, string(o))
	}
	assert.ElementsMatch(t, want, outcomes)
}

// BenchmarkHandler is of a pod whose environment is dense: JSON that takes long to read.
func BenchmarkHandler(b *testing.B) {
	for _, size := range []int{5 << 10, 200 << 10} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			a := newAdmission(b)
			a.pod.SetName("etl-load-lymugwh2")
			a.with(environment(size / 60))
			object, err := json.Marshal(a.pod.Object)
			require.NoError(b, err)
			_, after, _ := strings.Cut(recorded(b), `"object":`)
			review := strings.Replace(recorded(b), after, string(object)+"}}", 1)
			s := serve(b, a.marker.Mark, true)
			require.Equal(b, http.StatusOK, s.post(review).Code)
			b.SetBytes(int64(len(review)))
			before := cpu(b)
			for b.Loop() {
				s.post(review)
			}
			b.ReportMetric(float64(cpu(b)-before)/float64(b.N), "cpu-ns/op") // others' load is not in it
			require.Len(b, s.counted(b, admissions), 1)
		})
	}
}

// cpu is the time that the process has used.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var used syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &used))
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

func environment(n int) func(*admission) {
	var env []any
	for i := range n {
		env = append(env, map[string]any{"name": fmt.Sprintf("VARIABLE_%d", i), "value": fmt.Sprintf("value %d of it", i*i)})
	}
	return func(a *admission) {
		set(a.pod, []any{map[string]any{"name": requeue.BaseContainer, "env": env}}, "spec", "containers")
	}
}
