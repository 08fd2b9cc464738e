package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/airflow-requeue/airflow-requeue/internal/keyfile"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

const (
	waitFor = time.Minute
	tick    = 200 * time.Millisecond
)

func TestRunHoldsPodsThroughTheAPIServer(t *testing.T) {
	cluster := startCluster(t)
	ca := newAuthority(t)
	files := t.TempDir()
	certificate := ca.issue(t, files, 1)
	keysDir := writeKeys(t)
	leader := cluster.newLeader(t)
	program := startProgram(t,
		"--listen=127.0.0.1:0", "--metrics-listen=127.0.0.1:0",
		"--tls-cert-file="+certificate.cert, "--tls-private-key-file="+certificate.key, "--signing-keys-dir="+keysDir,
		"--airflow-user="+schedulerUser, "--lease-max-age=15s", "--no-leader-release-after=18s", "--shutdown-delay=2s",
		"--kubeconfig="+cluster.kubeconfig(t),
	)
	cluster.register(t, "airflow-requeue", "https://"+program.reviews+"/mutate", ca.pem)

	scheduler := cluster.as(t, schedulerUser)
	assert.EventuallyWithT(t, func(t *assert.CollectT) {
		assert.Equal(t, http.StatusOK, program.get("/readyz").code)
	}, waitFor, tick, "ready without a leader")

	t.Run("before a leader is seen, a pod goes unheld", func(t *testing.T) {
		scheduler.createUntil(t, func(pod *corev1.Pod) bool {
			assert.False(t, requeue.Held(pod))
			return !strings.Contains(program.get("/metrics").body, `airflow_requeue_admissions_total{outcome="NoLeader"} 0`)
		})
	})
	leader.start()
	t.Run("while a leader renews its lease, a pod is held, and its seal is good for what is stored", func(t *testing.T) {
		pod := scheduler.createUntil(t, requeue.Held)

		seal := sealerOf(t, keysDir).Verify(pod)
		assert.Equal(t, requeue.SealValid, seal.State, seal.Error)
		assert.Equal(t, "airflow-requeue", pod.Labels[requeue.LabelTracked])
		assert.Equal(t, []string{requeue.Finalizer}, pod.Finalizers)
	})
	t.Run("a pod of another user goes unheld, and forged stamps are gone", func(t *testing.T) {
		pod := airflowPod()
		pod.Labels[requeue.LabelHold] = requeue.HoldValue
		pod.Labels[requeue.LabelTracked] = "forged"
		pod.Finalizers = []string{requeue.Finalizer}
		pod.Annotations[requeue.AnnotationAttempt] = "1"
		pod.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: requeue.SchedulingGate}}

		created := cluster.admin.create(t, pod)

		assert.Equal(t, airflowPod().Labels, created.Labels)
		assert.Equal(t, airflowPod().Annotations, created.Annotations)
		assert.Empty(t, created.Finalizers)
		assert.True(t, requeue.Gated(created), "should it be the watcher after all, its pod never runs")
	})
	t.Run("a tuning annotation that can't be read comes back as a warning", func(t *testing.T) {
		pod := airflowPod()
		pod.Annotations[requeue.AnnotationBackoff] = "soon"

		assert.True(t, requeue.Held(scheduler.create(t, pod)))

		assert.Equal(t, []string{`annotation airflow-requeue.dev/backoff: "soon" is not a duration such as "90s" or "2m"; using 5s`},
			scheduler.warnings())
	})
	t.Run("an odd pod is never rejected", func(t *testing.T) { testOddPods(t, scheduler) })
	t.Run("a pod that another webhook changes is sealed as that one leaves it", func(t *testing.T) {
		url := serveSidecars(t, ca.issue(t, t.TempDir(), 3))
		cluster.register(t, "comes-later", url, ca.pem)
		pod := scheduler.createUntil(t, func(p *corev1.Pod) bool { return len(p.Spec.Containers) == 2 })

		assert.True(t, requeue.Held(pod))
		sealer := sealerOf(t, keysDir)
		seal := sealer.Verify(pod)
		require.Equal(t, requeue.SealValid, seal.State, seal.Error)
		jobSpec, err := sealer.Unpack(pod)
		require.NoError(t, err)
		assert.Contains(t, string(jobSpec), `"name":"sidecar"`)
	})
	t.Run("a new certificate is served without a restart", func(t *testing.T) {
		ca.issue(t, files, 2)
		require.EventuallyWithT(t, func(t *assert.CollectT) {
			assert.Equal(t, int64(2), program.serial(t))
		}, waitFor, tick)
		assert.True(t, requeue.Held(scheduler.create(t, airflowPod())))
	})
	t.Run("a certificate that can't be read leaves the last good one", func(t *testing.T) {
		require.NoError(t, os.WriteFile(certificate.cert, []byte("broken"), 0o600))
		program.waitForLog(t, "serving certificate not loaded")
		assert.Equal(t, int64(2), program.serial(t))
		assert.True(t, requeue.Held(scheduler.create(t, airflowPod())))
	})
	t.Run("a dry run is answered alike", func(t *testing.T) {
		pod, err := scheduler.CoreV1().Pods(namespace).Create(t.Context(), airflowPod(), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		require.NoError(t, err)
		assert.True(t, requeue.Held(pod))
	})
	t.Run("metrics count admissions by outcome", func(t *testing.T) {
		metrics := program.get("/metrics").body
		assert.Contains(t, metrics, `airflow_requeue_admissions_total{outcome="OtherUser"} 1`)
		assert.Contains(t, metrics, `airflow_requeue_admissions_total{outcome="Internal"} 0`)
		assert.Contains(t, metrics, `airflow_requeue_leader_ready{shard="0"} 1`)
	})
	t.Run("while the leader is not ready, a pod goes unheld and holds stay", func(t *testing.T) {
		held := scheduler.create(t, airflowPod())
		leader.ready(false)
		scheduler.createUntil(t, func(p *corev1.Pod) bool { return !requeue.Held(p) })
		leader.ready(true)
		scheduler.createUntil(t, requeue.Held)
		assert.True(t, requeue.Held(scheduler.read(t, held.Name)))
	})
	leader.stop()
	t.Run("when the leader is gone, a pod goes unheld, and then every hold is lifted", func(t *testing.T) {
		scheduler.createUntil(t, func(p *corev1.Pod) bool { return !requeue.Held(p) })
		require.EventuallyWithT(t, func(t *assert.CollectT) {
			pods, err := cluster.admin.CoreV1().Pods(namespace).List(context.Background(), metav1.ListOptions{LabelSelector: requeue.LabelTracked})
			if assert.NoError(t, err) {
				assert.Empty(t, pods.Items)
			}
		}, waitFor, tick)
		pods, err := cluster.admin.CoreV1().Pods(namespace).List(t.Context(), metav1.ListOptions{LabelSelector: requeue.LabelHold + "=" + requeue.HoldValue})
		require.NoError(t, err)
		assert.Empty(t, pods.Items)
		assert.Equal(t, http.StatusOK, program.get("/readyz").code, "a webhook without a leader is ready")
	})
	t.Run("at the end it is not ready, serves on for a while, and returns", func(t *testing.T) {
		program.cancel()
		require.EventuallyWithT(t, func(t *assert.CollectT) {
			assert.Equal(t, http.StatusServiceUnavailable, program.get("/readyz").code)
		}, waitFor, tick/4)
		assert.Equal(t, http.StatusOK, program.get("/livez").code)
		scheduler.create(t, airflowPod()) // with failure policy Fail

		assert.NoError(t, <-program.done)
		assert.Empty(t, program.get("/livez").code)
	})
}

// testOddPods relies on the failure policy Fail: what the webhook can't answer would be refused.
func testOddPods(t *testing.T, scheduler *user) {
	t.Helper()
	for _, c := range []struct {
		name string
		odd  func(*corev1.Pod)
		held bool
	}{
		{"named by the API server", func(p *corev1.Pod) { p.Name, p.GenerateName = "", "etl-load-" }, false},
		{"of an Airflow that is too old", func(p *corev1.Pod) { p.Labels[requeue.LabelAirflowVersion] = "2.10.3" }, false},
		{"bound already", func(p *corev1.Pod) { p.Spec.NodeName = "node-1" }, false},
		{"a callback", func(p *corev1.Pod) { p.Annotations[requeue.AnnotationCallbackID] = "1" }, false},
		{"revoked", func(p *corev1.Pod) { p.Labels[requeue.LabelHold] = "True" }, false},
		{"without annotations", func(p *corev1.Pod) { p.Annotations = nil }, false},
		{"annotations as large as may be", func(p *corev1.Pod) { p.Annotations["large"] = strings.Repeat("x", 255<<10) }, false},
		{"as large as etcd takes", func(p *corev1.Pod) { env(p, 1200<<10, 160<<10) }, false},
		{"large", func(p *corev1.Pod) { env(p, 150<<10, 50<<10) }, true},
		{"characters that JSON may escape", func(p *corev1.Pod) { p.Annotations["odd"] = "<a href='x'>&\u2028\x00\"\\é</a>" }, true},
		{"finalizers of others", func(p *corev1.Pod) { p.Finalizers = []string{"example.com/other"} }, true},
		{"gated by others", func(p *corev1.Pod) {
			p.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "example.com/gate"}}
		}, true},
		{"no service account", func(p *corev1.Pod) { p.Spec.ServiceAccountName = "" }, true},
		{"ids that are no labels", func(p *corev1.Pod) { p.Annotations["dag_id"] = strings.Repeat("ä/~", 80) }, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			pod := airflowPod()
			c.odd(pod)
			created := scheduler.create(t, pod)
			assert.Equal(t, c.held, requeue.Held(created))
			for name, value := range pod.Annotations {
				assert.Equal(t, value, created.Annotations[name])
			}
		})
	}
}

// env adds an environment: plain bytes that compress to next to nothing, and noise that does not at all.
func env(pod *corev1.Pod, plain, noise int) {
	raw := make([]byte, noise*3/4)               // base64 makes four characters of three bytes
	_, _ = rand.NewChaCha8([32]byte{}).Read(raw) // never fails
	base := &pod.Spec.Containers[0]
	base.Env = append(base.Env, corev1.EnvVar{Name: "PLAIN", Value: strings.Repeat("0123456789abcdef", plain/16)},
		corev1.EnvVar{Name: "NOISE", Value: base64.StdEncoding.EncodeToString(raw)})
}

func TestRunSaysWhatIsWrongWithItsFiles(t *testing.T) {
	t.Setenv("POD_NAMESPACE", namespace)
	bad := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(bad, "current"), []byte("key-1"), 0o600))
	err := run(t.Context(), []string{"--airflow-user=anna", "--signing-keys-dir=" + bad}, io.Discard, io.Discard)
	assert.EqualError(t, err, "loading signing keys from "+bad+": file current must hold the name of another file: that of the key that signs")

	err = run(t.Context(), []string{"--airflow-user=anna", "--signing-keys-dir=" + writeKeys(t), "--kubeconfig=nowhere"}, io.Discard, io.Discard)
	assert.ErrorContains(t, err, "reading --kubeconfig=nowhere: ")
}

func sealerOf(t *testing.T, keysDir string) *requeue.Sealer {
	t.Helper()
	keys, err := keyfile.Load(keysDir)
	require.NoError(t, err)
	sealer, err := requeue.NewSealer(func() requeue.Keys { return keys })
	require.NoError(t, err)
	return sealer
}

func writeKeys(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "current"), []byte("key-1\n"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "key-1"), bytes.Repeat([]byte("k"), requeue.MinKeyBytes), 0o600))
	return dir
}

// running is a run of the program.
type running struct {
	cancel           context.CancelFunc
	done             chan error
	log              *logBuffer
	reviews, metrics string // addresses
}

func startProgram(t *testing.T, args ...string) *running {
	t.Helper()
	t.Setenv("POD_NAMESPACE", namespace)
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{cancel: cancel, done: make(chan error, 1), log: &logBuffer{}}
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		r.done <- run(ctx, args, io.Discard, r.log)
	}()
	t.Cleanup(func() {
		cancel()
		<-finished
		if t.Failed() {
			t.Log(r.log.String())
		}
	})
	line := r.waitForLog(t, "serving")
	r.reviews, r.metrics = line["reviews"].(string), line["metrics"].(string)
	return r
}

// waitForLog returns the first line with the message.
func (r *running) waitForLog(t *testing.T, message string) (line map[string]any) {
	t.Helper()
	require.Eventually(t, func() bool {
		for raw := range strings.Lines(r.log.String()) {
			line = map[string]any{}
			if json.Unmarshal([]byte(raw), &line) == nil && line["msg"] == message {
				return true
			}
		}
		return false
	}, waitFor, tick, message)
	return line
}

type answer struct {
	code int
	body string
}

func (r *running) get(path string) answer {
	response, err := http.Get("http://" + r.metrics + path)
	if err != nil {
		return answer{}
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(response.Body)
	return answer{response.StatusCode, string(body)}
}

// serial is the serving certificate's.
func (r *running) serial(t assert.TestingT) int64 {
	conn, err := tls.Dial("tcp", r.reviews, &tls.Config{InsecureSkipVerify: true})
	if !assert.NoError(t, err) {
		return 0
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
}

// logBuffer is for one writer and one reader at a time.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
