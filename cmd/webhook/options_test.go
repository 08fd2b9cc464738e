package main

import (
	"bytes"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/airflow-requeue/airflow-requeue/internal/flags"
	"github.com/airflow-requeue/airflow-requeue/pkg/mutate"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

func TestParseFillsInDefaults(t *testing.T) {
	o, help, err := parse([]string{"--airflow-user=" + schedulerUser}, "airflow")

	require.NoError(t, err)
	assert.Empty(t, help)
	assert.Equal(t, &options{
		ownNamespace: "airflow",
		listen:       ":8443", metricsListen: ":8080",
		tlsCert: "/etc/airflow-requeue/tls/tls.crt", tlsKey: "/etc/airflow-requeue/tls/tls.key",
		serviceName: "airflow-requeue-webhook", maxReviews: 100,
		signingKeys:  "/etc/airflow-requeue/signing-keys",
		installation: "airflow-requeue", namespaces: []string{"airflow"},
		watcherUser:    "system:serviceaccount:airflow:airflow-requeue-watcher",
		airflowUsers:   []string{schedulerUser},
		mode:           "enforce",
		leaseNamespace: "airflow", leaseName: "airflow-requeue", shards: 1, leaseMaxAge: 30 * time.Second, releaseAfter: time.Minute,
		policy:        requeue.DefaultPolicy(),
		shutdownDelay: 5 * time.Second, log: flags.Log{Level: "info", Format: "json"},
	}, o)
}

func TestParseTakesRepeatedFlags(t *testing.T) {
	o, _, err := parse([]string{"--namespace=a", "--namespace=b,c", "--airflow-user=a", "--airflow-user=CN=b,O=c",
		"--airflow-group=d", "--airflow-group=e", "--installation=blue", "--max-retries=3"}, "airflow")

	require.NoError(t, err)
	assert.Equal(t, []string{"a", "b", "c"}, o.namespaces)
	assert.Equal(t, []string{"a", "CN=b,O=c"}, o.airflowUsers)
	assert.Equal(t, []string{"d", "e"}, o.airflowGroups)
	assert.Equal(t, "blue", o.leaseName, "the installation's")
	assert.Equal(t, 3, o.policy.MaxRetries)
}

// nowhere is the kubeconfig of an API server that does not answer.
func nowhere(t *testing.T) string {
	t.Helper()
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	require.NoError(t, os.WriteFile(kubeconfig, []byte(`{"clusters":[{"name":"a","cluster":{"server":"https://127.0.0.1:1"}}],
		"contexts":[{"name":"a","context":{"cluster":"a"}}],"current-context":"a"}`), 0o600))
	return kubeconfig
}

func TestTheLeaseOfEachShardWithANamespaceIsFollowed(t *testing.T) {
	for shards, want := range map[string]map[int]string{
		"1": {0: "airflow-requeue"},
		"2": {0: "airflow-requeue-0"}, // both namespaces are in it
		"4": {0: "airflow-requeue-0", 2: "airflow-requeue-2"},
	} {
		o, _, err := parse([]string{"--namespace=team-a,team-c", "--shards=" + shards, "--airflow-user=" + schedulerUser,
			"--signing-keys-dir=" + writeKeys(t), "--kubeconfig=" + nowhere(t)}, namespace)
		require.NoError(t, err)
		program, err := newProgram(o, slog.New(slog.DiscardHandler))
		require.NoError(t, err)
		got := map[int]string{}
		for shard, leader := range program.leaders {
			got[shard] = leader.Name
		}
		assert.Equal(t, want, got)
		assert.False(t, program.ready("team-a"), "nobody leads")
		assert.False(t, program.ready("team-d"), "nor for a namespace that is not served")
	}
}

func TestTheFlagsReachThePods(t *testing.T) {
	kubeconfig := nowhere(t)
	for _, c := range []struct {
		flag, airflow string
		want          mutate.Outcome
	}{
		{"", "3.3.2", mutate.Held},
		{"--mode=enforce", "3.3.2", mutate.Held},
		{"--mode=observe", "3.3.2", mutate.Observed},
		{"", "2.10.3", mutate.UnsupportedAirflow},
		{"--hold-unsupported-airflow", "2.10.3", mutate.Held},
	} {
		t.Run(c.flag+" "+c.airflow, func(t *testing.T) {
			args := append([]string{"--airflow-user=" + schedulerUser, "--signing-keys-dir=" + writeKeys(t), "--kubeconfig=" + kubeconfig}, strings.Fields(c.flag)...)
			o, _, err := parse(args, namespace)
			require.NoError(t, err)
			program, err := newProgram(o, slog.New(slog.DiscardHandler))
			require.NoError(t, err)
			submitted := airflowPod()
			submitted.Labels[requeue.LabelAirflowVersion] = c.airflow
			object, err := runtime.DefaultUnstructuredConverter.ToUnstructured(submitted)
			require.NoError(t, err)
			pod := &unstructured.Unstructured{Object: object}

			result := program.webhook.Mark(pod, mutate.Request{Namespace: namespace, User: schedulerUser, LeaderReady: true})

			require.NoError(t, result.Err)
			assert.Equal(t, c.want, result.Outcome)
			assert.Equal(t, c.want == mutate.Held, pod.GetLabels()[requeue.LabelHold] == requeue.HoldValue)
			assert.Equal(t, c.want == mutate.Held, len(pod.GetFinalizers()) > 0)
		})
	}
}

func TestParseSaysWhatIsWrongAndWhatWouldBeRight(t *testing.T) {
	for _, c := range []struct {
		name, args, own, says string
	}{
		{"nobody is Airflow", "", "airflow", "--airflow-user or --airflow-group is needed: name the account that Airflow's scheduler creates pods with, such as --airflow-user=system:serviceaccount:airflow:airflow-scheduler"},
		{"outside a cluster", "--airflow-user=a", "", "--lease-namespace is empty: give the watcher's namespace, or set POD_NAMESPACE\n" +
			"--watcher-user is empty: give the watcher's account, or set POD_NAMESPACE\n" +
			"--namespace is missing or empty: name where Airflow puts worker pods"},
		{"an empty user", "--airflow-user=", "airflow", "--airflow-user and --airflow-group must not be empty"},
		{"one account for both", "--airflow-user=a --watcher-user=a", "airflow", "--airflow-user and --watcher-user are both a: give each its own account"},
		{"an installation that is no label", "--airflow-user=a --installation=Blue_1", "airflow", "--installation=Blue_1: it names objects and is the value of a label: use up to 63 of a-z, 0-9 and '-'"},
		{"the system's namespace", "--airflow-user=a --namespace=kube-system", "airflow", "--namespace=kube-system: never; run Airflow's workers elsewhere"},
		{"no shard", "--airflow-user=a --shards=0", "airflow", "--shards=0: use 1, or how many watchers share the namespaces"},
		{"a lease that is always too old", "--airflow-user=a --lease-max-age=1s", "airflow", "--lease-max-age=1s: use 5s or more, time to see a renewal"},
		{"a sweep while pods are held", "--airflow-user=a --no-leader-release-after=10s", "airflow", "--no-leader-release-after=10s: use --lease-max-age (30s) or more: pods may be held until then"},
		{"a delay before the end", "--airflow-user=a --shutdown-delay=-1s", "airflow", "--shutdown-delay=-1s: use 0 or more"},
		{"a mode that is none", "--airflow-user=a --mode=dry-run", "airflow", "--mode=dry-run: use enforce or observe"},
		{"no certificate", "--airflow-user=a --tls-cert-file=", "airflow", "--tls-cert-file is empty: give the serving certificate's file, or --self-signed-secret"},
		{"two certificates", "--airflow-user=a --self-signed-secret=ca --tls-cert-file=/tls.crt", "airflow", "--self-signed-secret and --tls-cert-file or --tls-private-key-file: give one or the other"},
		{"a service that is none", "--airflow-user=a --self-signed-secret=ca --service-name=a.b", "airflow", "--service-name=a.b: give the name of a Service"},
		{"another's certificate and our authority", "--airflow-user=a --inject-ca-into=a", "airflow", "--inject-ca-into goes with --self-signed-secret: whoever brings the certificate's files brings their authority"},
		{"a Secret who knows where", "--airflow-user=a --watcher-user=b --namespace=a --lease-namespace=a --self-signed-secret=ca", "", "--self-signed-secret: the namespace of Secret and Service is unknown: set POD_NAMESPACE"},
		{"no reviews", "--airflow-user=a --max-concurrent-reviews=0", "airflow", "--max-concurrent-reviews=0: use 1 or more"},
		{"a policy that can't be meant", "--airflow-user=a --max-retries=-7", "airflow", "--max-retries=-7: use 0 for off, -1 for unlimited, or a number above"},
		{"a flag that is none", "--hold", "airflow", "unknown flag: --hold; see --help"},
		{"an argument", "--airflow-user=a now", "airflow", "unexpected argument now; see --help"},
		{"a duration that is none", "--lease-max-age=soon", "airflow", `invalid argument "soon" for "--lease-max-age" flag: must be a duration like "30s" or "5m"; see --help`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, _, err := parse(strings.Fields(c.args), c.own)
			assert.EqualError(t, err, c.says)
		})
	}
}

func TestRunPrintsHelp(t *testing.T) {
	t.Setenv("POD_NAMESPACE", "airflow")
	var stdout, stderr bytes.Buffer

	require.NoError(t, run(t.Context(), []string{"--help"}, &stdout, &stderr))

	assert.Empty(t, stderr.String())
	for _, flag := range []string{"listen", "metrics-listen", "tls-cert-file", "tls-private-key-file", "self-signed-secret", "inject-ca-into", "service-name", "max-concurrent-reviews", "signing-keys-dir", "installation",
		"namespace", "lease-namespace", "lease-name", "shards", "lease-max-age", "no-leader-release-after", "watcher-user", "airflow-user", "airflow-group", "mode", "hold-unsupported-airflow",
		"max-retries", "excluded-container-reasons", "backoff", "image-pull-grace", "start-deadline", "avoid-failed-node", "max-retries-cap", "backoff-floor", "clock-skew",

		"task-queued-timeout", "kubeconfig", "log-level", "log-format", "shutdown-delay", "version"} {
		assert.Regexp(t, `(?m)^      --`+flag+`[ [].*\S`, stdout.String())
	}
	assert.Contains(t, stdout.String(), "\nThe watcher that leads:\n")
	for line := range strings.Lines(stdout.String()) {
		assert.LessOrEqual(t, len(line), 122, line)
	}
}

func TestRunRefusesALogThatIsNone(t *testing.T) {
	t.Setenv("POD_NAMESPACE", "airflow")
	err := run(t.Context(), []string{"--airflow-user=a", "--log-format=xml"}, io.Discard, io.Discard)
	assert.EqualError(t, err, "--log-format=xml: use json or text")
}
