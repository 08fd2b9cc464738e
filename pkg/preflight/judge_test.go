package preflight

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/version"
	"k8s.io/utils/ptr"
)

func TestKubernetesIsNewEnough(t *testing.T) {
	for _, c := range []struct {
		name string
		info version.Info
		user string
		want Finding
	}{
		{"the oldest that is", version.Info{Major: "1", Minor: "27", GitVersion: "v1.27.0"}, "anna", ok("v1.27.0, as anna")},
		{"one too old", version.Info{Major: "1", Minor: "26", GitVersion: "v1.26.9"}, "anna",
			fail("upgrade Kubernetes to 1.27 or later: without scheduling gates a replacement may run too early", "v1.26.9 is too old")},
		{"a vendor's", version.Info{Major: "1", Minor: "26+", GitVersion: "v1.26.9-gke.1"}, "anna",
			fail("upgrade Kubernetes to 1.27 or later: without scheduling gates a replacement may run too early", "v1.26.9-gke.1 is too old")},
		{"one that does not say who asks", version.Info{Major: "1", Minor: "27", GitVersion: "v1.27.0"}, "", ok("v1.27.0")},
		{"one whose version nobody can read", version.Info{Major: "1", Minor: "x", GitVersion: "odd"}, "", ok("odd")},
	} {
		t.Run(c.name, func(t *testing.T) { assert.Equal(t, c.want, judgeServer(c.info, c.user)) })
	}
}

func TestTheWebhookIsAskedWhereTheAPIServerAsksIt(t *testing.T) {
	type config = admissionregistrationv1.WebhookClientConfig
	type service = admissionregistrationv1.ServiceReference
	for _, c := range []struct {
		name          string
		config        config
		address, host string
	}{
		{"a Service", config{Service: &service{Namespace: "airflow", Name: "webhook"}}, "webhook.airflow.svc:443", "webhook.airflow.svc"},
		{"a Service's port", config{Service: &service{Namespace: "airflow", Name: "webhook", Port: ptr.To(int32(8443))}}, "webhook.airflow.svc:8443", "webhook.airflow.svc"},
		{"a URL", config{URL: ptr.To("https://example.com/mutate")}, "example.com:443", "example.com"},
		{"a URL's port", config{URL: ptr.To("https://[::1]:8443/mutate")}, "[::1]:8443", "::1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			address, host, err := target(c.config)
			require.NoError(t, err)
			assert.Equal(t, c.address, address)
			assert.Equal(t, c.host, host)
		})
	}
	_, _, err := target(config{})
	assert.EqualError(t, err, "clientConfig has neither a service nor a URL")
}

func TestPrint(t *testing.T) {
	var out strings.Builder
	require.NoError(t, Print(&out, []Finding{
		{"database", OK, "PostgreSQL, task_instance as since Airflow 3.0 (revision d2f4e1b3c5a7, of Airflow 3.3)", ""},
		{"rights", Fail, "missing: " + strings.Repeat("get,watch,patch,delete pods -n airflow; ", 4), "grant them"},
		{"Airflow's requeue", Warn, "seems on", strings.Repeat("set it to 0 ", 12)},
	}))
	assert.Equal(t, `
ok    database           PostgreSQL, task_instance as since Airflow 3.0 (revision d2f4e1b3c5a7, of
                         Airflow 3.3)
FAIL  rights             missing: get,watch,patch,delete pods -n airflow; get,watch,patch,delete
                         pods -n airflow; get,watch,patch,delete pods -n airflow;
                         get,watch,patch,delete pods -n airflow;
warn  Airflow's requeue  seems on

What to do:
FAIL  rights             grant them
warn  Airflow's requeue  set it to 0 set it to 0 set it to 0 set it to 0 set it to 0 set it to 0 set
                         it to 0 set it to 0 set it to 0 set it to 0 set it to 0 set it to 0
`, "\n"+out.String())
}

func TestPrintHasNothingToDoWhereAllIsWell(t *testing.T) {
	var out strings.Builder
	require.NoError(t, Print(&out, []Finding{{"rights", OK, "all that a watcher needs", ""}}))
	assert.Equal(t, "ok    rights  all that a watcher needs\n", out.String())
}
