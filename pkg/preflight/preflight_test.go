package preflight

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	clocktesting "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
	"github.com/airflow-requeue/airflow-requeue/pkg/tidb"
)

func TestAnInstallationThatIsWellIsFoundWell(t *testing.T) {
	t.Parallel()
	i := newInstallation(t)
	i.submit("held") // before there is a webhook that knows who may
	i.wellServed()
	i.registered()
	i.lead("watcher-0", "true", time.Now())
	i.scheduler(corev1.EnvVar{Name: ownSetting, Value: "0"})

	var got []Finding
	for _, found := range Run(t.Context(), i.client, i.options) {
		got = append(got, i.normal(found))
	}

	require.Len(t, got, 11)
	assert.Regexp(t, `^v1\.\d+\.\d+\S*, as admin$`, got[2].Seen)
	assert.Regexp(t, `^1, the longest for \d+s$`, got[8].Seen)
	got[2].Seen, got[8].Seen = "", ""
	assert.Equal(t, []Finding{
		{Check: "signing keys", State: OK, Seen: "1 key, k1 signs"},
		{Check: "database", State: OK, Seen: "SQLite, task_instance as since Airflow 3.0 (revision d2f4e1b3c5a7, of Airflow 3.3)"},
		{Check: "API server", State: OK},
		{Check: "rights", State: OK, Seen: "all that a watcher needs"},
		{Check: "webhook", State: OK, Seen: "registered for namespace NS"},
		{Check: "webhook's CA", State: OK, Seen: "until DATE; the webhook's certificate, by it, until DATE"},
		{Check: "webhook answers", State: OK, Seen: "asked by the API server, about a pod that was created as a dry run"},
		{Check: "leader", State: OK, Seen: "watcher-0, which can decide"},
		{Check: "held pods", State: OK},
		{Check: "worker pods", State: OK, Seen: "1 pod, of Airflow 3.3.2"},
		{Check: "Airflow's requeue", State: OK, Seen: "off, says the environment of pod airflow-scheduler-0"},
	}, got)
}

// Each check is seen to find what it is there for. What is not named is as newInstallation leaves it.
func TestWhatIsWrongIsFound(t *testing.T) {
	t.Parallel()
	year, longAgo, tomorrow := time.Now().AddDate(1, 0, 0), time.Now().AddDate(-1, 0, 0), time.Now().Add(24*time.Hour)
	renewal := time.Now().Add(7 * 24 * time.Hour / 3) // when a self-signed webhook renews its certificate
	anybody := rbacv1.PolicyRule{Verbs: []string{"list", "create"}, APIGroups: []string{""}, Resources: []string{"pods"}}
	for _, c := range []struct {
		name  string
		spoil func(*installation)
		want  Finding
	}{
		{"no signing keys", func(i *installation) {
			i.options.Keys = func() (requeue.Keys, error) { return requeue.Keys{}, errors.New("loading signing keys: none") }
		}, Finding{"signing keys", Fail, "loading signing keys: none", ""}},
		{"no database URL", func(i *installation) { i.options.Database = tidb.Source{Env: "NOWHERE"} },
			Finding{"database", Fail, "reading the metadata database's connection URL: the environment variable NOWHERE is not set", ""}},
		{"rights are missing", func(i *installation) { i.as(anybody) },
			Finding{"rights", Fail, "missing: get,watch,patch,delete pods -n NS; patch pods/status -n NS; stamp pods.airflow-requeue.dev -n NS; create events.events.k8s.io -n NS; " +
				"list,watch namespaces/NS; create leases.coordination.k8s.io -n NS; get,update leases.coordination.k8s.io/NS -n NS", ""}},

		{"the webhook is not registered", func(*installation) {},
			Finding{"webhook", Fail, "not registered: there is no MutatingWebhookConfiguration NS", ""}},
		{"the webhook's configuration may not be read", func(i *installation) { i.as(anybody) },
			Finding{"webhook", Warn, "can't be told: MutatingWebhookConfiguration NS may not be read", ""}},
		{"a namespace is not there", func(i *installation) {
			i.url = "https://127.0.0.1:1"
			i.register()
			i.options.Namespaces = append(i.options.Namespaces, "nowhere")
		}, Finding{"webhook", Fail, "there is no namespace nowhere", ""}},
		{"the namespaceSelector leaves a namespace out", func(i *installation) {
			i.url = "https://127.0.0.1:1"
			i.register()
			i.options.Namespaces = append(i.options.Namespaces, metav1.NamespaceDefault)
		}, Finding{"webhook", Fail, "registered, but not for namespace default", ""}},
		{"the rules take no pods", func(i *installation) {
			i.url = "https://127.0.0.1:1"
			i.register(func(h *admissionregistrationv1.MutatingWebhook) { h.Rules[0].Resources = []string{"jobs"} })
		}, Finding{"webhook", Fail, "MutatingWebhookConfiguration NS takes no worker pods: it is to have a rule for CREATE of pods, " +
			"and an objectSelector that takes kubernetes_executor=True", ""}},
		{"the objectSelector takes no worker pods", func(i *installation) {
			i.url = "https://127.0.0.1:1"
			i.register(func(h *admissionregistrationv1.MutatingWebhook) {
				h.ObjectSelector.MatchLabels = map[string]string{"airflow": "True"}
			})
		}, Finding{"webhook", Fail, "MutatingWebhookConfiguration NS takes no worker pods: it is to have a rule for CREATE of pods, " +
			"and an objectSelector that takes kubernetes_executor=True", ""}},
		{"pods need the webhook", func(i *installation) {
			i.wellServed()
			i.register(func(h *admissionregistrationv1.MutatingWebhook) {
				h.FailurePolicy = ptr.To(admissionregistrationv1.Fail)
			})
		}, Finding{"webhook", Warn, "registered for namespace NS, but where the webhook is gone no worker pod can be created", ""}},

		{"no CA was injected yet", func(i *installation) {
			i.register(func(h *admissionregistrationv1.MutatingWebhook) {
				h.ClientConfig = admissionregistrationv1.WebhookClientConfig{Service: &admissionregistrationv1.ServiceReference{Namespace: i.Namespace, Name: "webhook"}}
			})
		}, Finding{"webhook's CA", Fail, "MutatingWebhookConfiguration NS has no caBundle yet", ""}},
		{"the CA has expired", func(i *installation) {
			i.serve("127.0.0.1", longAgo, year)
			i.register()
		}, Finding{"webhook's CA", Fail, "expired on DATE", ""}},
		{"the CA expires soon", func(i *installation) {
			i.serve("127.0.0.1", tomorrow, year)
			i.register()
		}, Finding{"webhook's CA", Warn, "expires on DATE", ""}},
		{"the CA is another's", func(i *installation) {
			i.wellServed()
			_, i.ca = issue(t, "another", year, year)
			i.register()
		}, Finding{"webhook's CA", Fail, "it does not vouch for the webhook's certificate: x509: certificate signed by unknown authority", ""}},
		{"the webhook's certificate has another name", func(i *installation) {
			i.serve("webhook.elsewhere.svc", year, year)
			i.register()
		}, Finding{"webhook's CA", Fail, "it does not vouch for the webhook's certificate: x509: cannot validate certificate for 127.0.0.1 " +
			"because it doesn't contain any IP SANs", ""}},
		{"the webhook's certificate expires soon", func(i *installation) {
			i.serve("127.0.0.1", year, tomorrow)
			i.register()
		}, Finding{"webhook's CA", Warn, "the webhook's certificate expires on DATE", ""}},
		{"the webhook's certificate is its own, of a week, and about to be renewed", func(i *installation) {
			i.serve("127.0.0.1", year, renewal)
			i.register()
		}, Finding{"webhook's CA", OK, "until DATE; the webhook's certificate, by it, until DATE", ""}},
		{"the webhook can't be reached from here", func(i *installation) {
			i.wellServed()
			i.stop()
			i.register()
		}, Finding{"webhook's CA", OK, "until DATE; the webhook's certificate can't be seen from here", ""}},

		{"the API server can't reach the webhook", func(i *installation) {
			i.wellServed()
			i.registered()
			i.stop()
		}, Finding{"webhook answers", Fail, "the API server could not ask it about a pod in namespace NS", ""}},
		{"no pod may be created, not even as a dry run", func(i *installation) {
			i.wellServed()
			i.registered()
			i.quota()
		}, Finding{"webhook answers", Warn, "", ""}},

		{"no pod may be created for want of rights", func(i *installation) {
			i.as(rbacv1.PolicyRule{Verbs: []string{"list"}, APIGroups: []string{""}, Resources: []string{"pods"}})
		},
			Finding{"webhook answers", Warn, "can't be told without the rights that are missing", ""}},
		{"the Lease may not be read", func(i *installation) { i.as(anybody) },
			Finding{"leader", Warn, "can't be told without the rights that are missing", ""}},
		{"no watcher has ever led", func(*installation) {},
			Finding{"leader", Warn, "none: there is no Lease NS in namespace NS", ""}},
		{"nobody has taken the Lease that the manifests have", func(i *installation) { i.lead("", "", time.Time{}) },
			Finding{"leader", Warn, "none: nobody has taken Lease NS in namespace NS yet", ""}},
		{"the last leader has stopped", func(i *installation) { i.lead("", "false", time.Now()) },
			Finding{"leader", Warn, "none: the last one has given the Lease up", ""}},
		{"the last leader is gone", func(i *installation) {
			i.options.Clock = clocktesting.NewFakeClock(time.Now())
			i.lead("watcher-0", "true", i.options.Clock.Now().Add(-2*time.Hour))
		}, Finding{"leader", Warn, "none: watcher-0 last renewed the Lease 2h0m0s ago, by its own clock", ""}},
		{"the leader can't read the database", func(i *installation) { i.lead("watcher-0", "false", time.Now()) },
			Finding{"leader", Warn, "watcher-0, which can't read the metadata database", ""}},
		{"the clock of a leader is two hours off", func(i *installation) {
			i.options.Lease.RetryPeriod = 4 * time.Second
			i.renew(i.lead("watcher-0", "true", time.Now().Add(-2*time.Hour)))
		}, Finding{"leader", OK, "watcher-0, which can decide", ""}},

		{"nothing is held", func(*installation) {}, Finding{"held pods", OK, "none", ""}},
		{"a pod is held for long, another is observed", func(i *installation) {
			pod := i.submit("held")
			i.submit(requeue.ModeObserve)
			i.names = []string{pod.Name, "POD"}
			i.options.Clock = clocktesting.NewFakeClock(pod.CreationTimestamp.Add(20 * time.Minute))
		}, Finding{"held pods", Warn, "1, the longest for 20m0s; 1 more are observed: NS/POD", ""}},

		{"no worker pod is there", func(*installation) {}, Finding{"worker pods", OK, "none at the moment", ""}},
		{"an Airflow is not supported", func(i *installation) {
			i.worker("2.10.3-composer")
			i.worker("3.3.2")
		}, Finding{"worker pods", Warn, "2 pods, of Airflow 2.10.3-composer, 3.3.2: pods of one before 2.10.4 are not held", ""}},
		{"pods are made by an account that the webhook does not know", func(i *installation) {
			i.lead("watcher-0", "true", time.Now())
			i.worker("3.3.2")
		}, Finding{"worker pods", Warn, "1 pod, of Airflow 3.3.2; none of the 1 that were made since a watcher leads was held", ""}},
		{"pods are not held while nobody leads", func(i *installation) { i.worker("3.3.2") },
			Finding{"worker pods", OK, "1 pod, of Airflow 3.3.2", ""}},

		{"Airflow's own requeue is on", func(i *installation) { i.scheduler(corev1.EnvVar{Name: ownSetting, Value: "-1"}) },
			Finding{"Airflow's requeue", Warn, "on, -1, says the environment of pod airflow-scheduler-0", ""}},
		{"Airflow's own requeue is as it comes", func(i *installation) { i.worker("3.3.2") },
			Finding{"Airflow's requeue", Warn, "seems on: it is by default since provider 10.20", ""}},
		{"Airflow's own requeue is set out of sight", func(i *installation) {
			i.scheduler(corev1.EnvVar{Name: ownSetting, ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{Key: "a",
				LocalObjectReference: corev1.LocalObjectReference{Name: "b"}}}})
		}, Finding{"Airflow's requeue", Warn, "seems on: it is by default since provider 10.20", ""}},
		{"Airflow has no requeue of its own", func(i *installation) { i.worker("2.10.5") },
			Finding{"Airflow's requeue", OK, "none: it came with a provider that needs Airflow 2.11.0", ""}},
		{"nothing of Airflow is there", func(*installation) {},
			Finding{"Airflow's requeue", Warn, "can't be told: there is no pod of a scheduler (component=scheduler), and no worker pod", ""}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			i := newInstallation(t)
			c.spoil(i)
			found := i.find(c.want.Check)
			if c.want.Seen == "" {
				assert.Contains(t, found.Seen, "can't be told: the API server takes no pod as a dry run: ")
				found.Seen = ""
			}
			assert.Equal(t, c.want, found)
		})
	}
}

func TestWithoutAnAPIServerNothingThatNeedsItIsLookedAt(t *testing.T) {
	t.Parallel()
	i := newInstallation(t)
	client, err := kubernetes.NewForConfig(&rest.Config{Host: "https://127.0.0.1:1"})
	require.NoError(t, err)

	all := Run(t.Context(), client, i.options)

	require.Len(t, all, 3)
	assert.Equal(t, "API server", all[2].Check)
	assert.Equal(t, Fail, all[2].State)
	assert.Contains(t, all[2].Seen, "connection refused")
}

// What a watcher can do its work without may come later than the watcher: it must not keep it from starting.
func TestAWatcherThatStartsWaitsForNothingButWhatItCanNotDoWithout(t *testing.T) {
	t.Parallel()
	i := newInstallation(t)
	i.options.Starting = true
	i.options.Lease.RetryPeriod = 4 * time.Second
	i.renew(i.lead("watcher-0", "true", time.Now().Add(-2*time.Hour)))

	for _, found := range Run(t.Context(), i.client, i.options) {
		assert.NotEqual(t, Fail, found.State, "%+v", found)
		if found.Check == "leader" {
			assert.Contains(t, found.Seen, "none: watcher-0 last renewed the Lease 2h0m", "nobody waits to see it renewed")
		}
	}

	i.as()
	i.options.Keys = func() (requeue.Keys, error) { return requeue.Keys{}, errors.New("none") }
	i.options.Database = tidb.Source{File: filepath.Join(t.TempDir(), "nothing")}
	var failed []string
	for _, found := range Run(t.Context(), i.client, i.options) {
		if found.State == Fail {
			failed = append(failed, found.Check)
		}
	}
	assert.Equal(t, []string{"signing keys", "database", "rights"}, failed)
}

func TestNothingIsChanged(t *testing.T) {
	t.Parallel()
	i := newInstallation(t)
	i.submit("held")
	before := i.Pods()
	Run(t.Context(), i.client, i.options)
	assert.Equal(t, before, i.Pods())
}

// quota lets nobody create a pod.
func (i *installation) quota() {
	i.T.Helper()
	policy := &corev1.LimitRange{ObjectMeta: metav1.ObjectMeta{Name: "least"}, Spec: corev1.LimitRangeSpec{Limits: []corev1.LimitRangeItem{{
		Type: corev1.LimitTypeContainer, Min: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1")}}}}}
	_, err := i.Client.CoreV1().LimitRanges(i.Namespace).Create(i.T.Context(), policy, metav1.CreateOptions{})
	require.NoError(i.T, err)
	require.Eventually(i.T, func() bool {
		_, err := i.Client.CoreV1().Pods(i.Namespace).Create(i.T.Context(), probe(), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return err != nil
	}, time.Minute, 50*time.Millisecond)
}

// renew renews a Lease until the test ends, by a clock that is off.
func (i *installation) renew(lease *coordinationv1.Lease) {
	ctx := i.T.Context()
	go func() {
		for ctx.Err() == nil {
			lease.Spec.RenewTime = ptr.To(metav1.NewMicroTime(lease.Spec.RenewTime.Add(time.Millisecond)))
			if next, err := i.Client.CoordinationV1().Leases(i.Namespace).Update(ctx, lease, metav1.UpdateOptions{}); err == nil {
				lease = next
			}
		}
	}()
}
