package chart_test

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"

	"github.com/airflow-requeue/airflow-requeue/internal/rendered"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

func TestValuesThatCanNotBeMeantAreRefusedWithWhatIsWrong(t *testing.T) {
	t.Parallel()
	for set, want := range map[string]string{
		"airflow.relase=prod":                            "at '/airflow': additional properties 'relase' not allowed",
		"watchers.replicas=1":                            "additional properties 'watchers' not allowed",
		"mode=off":                                       "at '/mode': value must be one of 'enforce', 'observe'",
		"policy.maxRetries=-2":                           "at '/policy/maxRetries': minimum: got -2, want -1",
		"policy.backoff=5":                               "at '/policy/backoff': got number, want null or string",
		"policy.backoff=soon":                            "at '/policy/backoff': 'soon' does not match pattern",
		"webhook.replicas=0":                             "at '/webhook/replicas': minimum: got 0, want 1",
		"webhook.timeoutSeconds=60":                      "at '/webhook/timeoutSeconds': maximum: got 60, want 30",
		"certificates.mode=letsencrypt":                  "at '/certificates/mode': value must be one of 'self-signed', 'cert-manager', 'provided'",
		"airflow.workerNamespaces={kube-system}":         "at '/airflow/workerNamespaces/0'",
		"watcher.extraArgs={workers=1}":                  "at '/watcher/extraArgs/0': 'workers=1' does not match pattern",
		"images.tag=a b":                                 "at '/images/tag'",
		"networkPolicies.egress=all":                     "at '/networkPolicies/egress': got string, want array",
		"certificates.caBundle=bm90IGEgY2VydGlmaWNhdGU=": "at '/certificates/caBundle'",
	} {
		t.Run(set, func(t *testing.T) {
			assert.Contains(t, refusal(t, "airflow-requeue", "--set="+set), want)
		})
	}
	assert.Contains(t, refusal(t, "a.b"), "the release's name, a.b, is the installation's")
	assert.Contains(t, refusal(t, "a", "--kube-version=1.29.4"), "Kubernetes v1.29.4 has no ValidatingAdmissionPolicy: set admissionPolicy.enabled=false")
	assert.Contains(t, refusal(t, "a", "--set=signingKeys.secret=airflow-requeue-signing-keys"), "signingKeys.secret: airflow-requeue-signing-keys is the Secret that the chart makes")
	assert.Contains(t, refusal(t, "a", "--kube-version=1.26.0"), "chart requires kubeVersion: >=1.27.0-0")
	assert.Empty(t, rendered.Template(t, helm, "a", chart, "--kube-version=1.29.4", "--set=admissionPolicy.enabled=false").
		Of("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"))
}

// refusal is what helm says of what it does not render.
func refusal(t *testing.T, release string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), helm, append([]string{"template", release, chart}, args...)...).CombinedOutput()
	require.Error(t, err, "%s", out)
	return string(out)
}

// TestEachValueIsRenderedAsItsProgramsFlag renders another value than the default for each, and has the programs read the flags.
func TestEachValueIsRenderedAsItsProgramsFlag(t *testing.T) {
	t.Parallel()
	args := arguments(t, rendered.Template(t, helm, "blue", chart, "--namespace=airflow", "--values=testdata/every-value.yaml"))
	policy := []string{"--avoid-failed-node=false", "--backoff=10s", "--backoff-floor=1s", "--clock-skew=1m", "--excluded-container-reasons=Error,OOMKilled",
		"--image-pull-grace=3m", "--max-retries=2", "--max-retries-cap=5", "--start-deadline=20m", "--task-queued-timeout=5m"}
	for _, name := range []string{"check", "watcher", "webhook"} {
		assert.Subset(t, args[name], policy, "%s: both programs must be given the policy", name)
	}
	assert.Subset(t, args["watcher"], []string{"--replaced-pod-ttl=10m", "--storm-breaker=30", "--log-format=text"})
	assert.Subset(t, args["webhook"], []string{"--mode=observe", "--hold-unsupported-airflow", "--airflow-user=system:serviceaccount:prod:prod-scheduler",
		"--airflow-user=anna@example.com", "--airflow-group=schedulers", "--log-format=text"})
	for name, given := range args {
		program := map[string]string{"check": "watcher", "release": "watcher"}[name]
		known := help(t, or(program, name), given)
		for _, arg := range given {
			if flag, _, _ := strings.Cut(arg, "="); strings.HasPrefix(flag, "--") {
				assert.Contains(t, known, flag, "%s knows it", name)
			}
		}
	}
}

// help is what a program says of the flags of a command.
func help(t *testing.T, program string, args []string) string {
	t.Helper()
	command := []string{"--help"}
	if !strings.HasPrefix(args[0], "--") {
		command = []string{args[0], "--help"}
	}
	out, err := exec.CommandContext(t.Context(), built[program], command...).Output()
	require.NoError(t, err)
	return string(out)
}

func TestTheJobThatReleasesRunsWhereAndAsTheWatcherDoes(t *testing.T) {
	t.Parallel()
	all := rendered.Template(t, helm, "blue", chart, "--namespace=airflow", "--values=testdata/every-value.yaml")
	watcher := rendered.Into[appsv1.Deployment](t, all, "Deployment", "airflow-requeue-watcher").Spec.Template
	release := rendered.Into[batchv1.Job](t, all, "Job", "airflow-requeue-release").Spec.Template
	delete(watcher.Annotations, "kubectl.kubernetes.io/default-container")
	watcher.Labels["app.kubernetes.io/component"] = "release"
	assert.Equal(t, watcher.ObjectMeta, release.ObjectMeta)
	for _, placed := range []func(corev1.PodTemplateSpec) any{
		func(p corev1.PodTemplateSpec) any { return p.Spec.NodeSelector },
		func(p corev1.PodTemplateSpec) any { return p.Spec.Tolerations },
		func(p corev1.PodTemplateSpec) any { return p.Spec.Affinity },
		func(p corev1.PodTemplateSpec) any { return p.Spec.ImagePullSecrets },
		func(p corev1.PodTemplateSpec) any { return p.Spec.PriorityClassName },
	} {
		assert.NotEmpty(t, placed(release))
		assert.Equal(t, placed(watcher), placed(release))
	}
}

func TestWhereEgressIsConfinedTheWatcherStillReachesTheInstallationsPods(t *testing.T) {
	t.Parallel()
	all := rendered.Template(t, helm, "blue", chart, "--namespace=airflow", "--values=testdata/every-value.yaml")
	port := func(port intstr.IntOrString, protocol *corev1.Protocol) networkingv1.NetworkPolicyPort {
		return networkingv1.NetworkPolicyPort{Port: &port, Protocol: protocol}
	}
	given := networkingv1.NetworkPolicyEgressRule{Ports: []networkingv1.NetworkPolicyPort{port(intstr.FromInt32(53), ptr.To(corev1.ProtocolUDP))}}
	own := networkingv1.NetworkPolicyEgressRule{Ports: []networkingv1.NetworkPolicyPort{port(intstr.FromString("https"), nil), port(intstr.FromString("metrics"), nil)},
		To: []networkingv1.NetworkPolicyPeer{{PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{
			"app.kubernetes.io/name": "airflow-requeue", "app.kubernetes.io/instance": "blue"}}}}}
	for name, want := range map[string][]networkingv1.NetworkPolicyEgressRule{"watcher": {own, given}, "webhook": {given}} {
		policy := rendered.Into[networkingv1.NetworkPolicy](t, all, "NetworkPolicy", "airflow-requeue-"+name)
		assert.Equal(t, want, policy.Spec.Egress, name)
	}
}

func TestEveryValueIsSetToAnotherInTheTests(t *testing.T) {
	t.Parallel()
	defaults, others := values(t, filepath.Join(chart, "values.yaml")), values(t, "testdata/every-value.yaml")
	for path, value := range defaults {
		require.Contains(t, others, path)
		assert.NotEqual(t, value, others[path], path)
	}
	assert.ElementsMatch(t, slices.Collect(maps.Keys(defaults)), slices.Collect(maps.Keys(others)))
}

// values are a file's, by their path, as JSON. What holds no documented value, as resources do, is one.
func values(t *testing.T, file string) map[string]string {
	t.Helper()
	content, err := os.ReadFile(file)
	require.NoError(t, err)
	var tree map[string]any
	require.NoError(t, yaml.Unmarshal(content, &tree))
	found := map[string]string{}
	for _, path := range documented(t) {
		var value any = tree
		for _, part := range strings.Split(path.name, ".") {
			value = value.(map[string]any)[part]
		}
		found[path.name] = oneLine(t, value)
	}
	return found
}

func oneLine(t *testing.T, value any) string {
	t.Helper()
	raw, err := yaml.Marshal(value)
	require.NoError(t, err)
	raw, err = yaml.YAMLToJSON(raw)
	require.NoError(t, err)
	return string(raw)
}

// documentation is a value's.
type documentation struct{ name, words string }

// documented are the values that values.yaml documents, in its order: the line before each begins with `# --`.
func documented(t *testing.T) (all []documentation) {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(chart, "values.yaml"))
	require.NoError(t, err)
	key := regexp.MustCompile(`^( *)([A-Za-z]+):`)
	var path []string
	words := ""
	for line := range strings.Lines(string(content)) {
		if said, ok := strings.CutPrefix(strings.TrimSpace(line), "# -- "); ok {
			words = said
			continue
		}
		if found := key.FindStringSubmatch(line); found != nil {
			path = append(path[:min(len(path), len(found[1])/2)], found[2])
			if words != "" {
				all = append(all, documentation{strings.Join(path, "."), words})
			}
			words = ""
		}
	}
	require.NotEmpty(t, all)
	return all
}

// TestTheChartsTableIsThatOfItsValues: UPDATE=1 writes it anew.
func TestTheChartsTableIsThatOfItsValues(t *testing.T) {
	t.Parallel()
	defaults := values(t, filepath.Join(chart, "values.yaml"))
	var table bytes.Buffer
	table.WriteString("| value | default | |\n|---|---|---|\n")
	for _, d := range documented(t) {
		fmt.Fprintf(&table, "| `%s` | `%s` | %s |\n", d.name, defaults[d.name], strings.ReplaceAll(d.words, "|", `\|`))
	}
	file := filepath.Join(chart, "README.md")
	readme, err := os.ReadFile(file)
	require.NoError(t, err)
	before, rest, ok := strings.Cut(string(readme), "| value | default | |\n")
	require.True(t, ok)
	_, after, _ := strings.Cut(rest, "\n\n")
	want := before + table.String() + "\n" + after
	if os.Getenv("UPDATE") != "" {
		require.NoError(t, os.WriteFile(file, []byte(want), 0o600))
		return
	}
	require.Equal(t, want, string(readme))
}

func TestTheDefaultsThatTheChartNamesAreThePolicys(t *testing.T) {
	t.Parallel()
	p := requeue.DefaultPolicy()
	want := map[string]any{
		"policy.maxRetries": p.MaxRetries, "policy.excludedContainerReasons": p.ExcludedReasons, "policy.avoidFailedNode": p.AvoidFailedNode,
		"policy.backoff": p.Backoff, "policy.imagePullGrace": p.ImagePullGrace, "policy.clockSkew": p.ClockSkew,
		"policy.taskQueuedTimeout": p.TaskQueuedTimeout,
	}
	for _, d := range documented(t) {
		if value, ok := want[d.name]; ok {
			_, said, _ := strings.Cut(d.words, "by default ")
			assert.Equal(t, strings.TrimSuffix(fmt.Sprint(value), "m0s"), strings.TrimSuffix(said, "m"), d.name)
			delete(want, d.name)
		}
	}
	assert.Empty(t, want, "documented")
}
