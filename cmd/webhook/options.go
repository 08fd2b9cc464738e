package main

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/airflow-requeue/airflow-requeue/internal/flags"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

const intro = `airflow-requeue-webhook stamps the worker pods of Airflow's KubernetesExecutor as they are created, so that
airflow-requeue-watcher can replace those that die before their task starts.

It never denies a pod. While no watcher leads, it lets pods through as they come and, after a while, lifts every
hold there is.
`

// Modes. What a pod was stamped with says how it is treated to its end, whatever the mode is by then.
const (
	modeEnforce = "enforce"
	modeObserve = "observe"
)

type options struct {
	ownNamespace          string
	listen, metricsListen string
	pprof                 bool
	tlsCert, tlsKey       string
	selfSigned            string
	injectInto            string
	serviceName           string
	maxReviews            int
	signingKeys           string

	installation  string
	namespaces    []string
	watcherUser   string
	airflowUsers  []string
	airflowGroups []string
	mode          string
	anyAirflow    bool

	leaseNamespace string
	leaseName      string
	shards         int
	leaseMaxAge    time.Duration
	releaseAfter   time.Duration

	policy requeue.Policy

	kubeconfig    string
	shutdownDelay time.Duration
	log           flags.Log
}

// newOptions returns the flags and what they set; ownNamespace, empty when unknown, is a default of many.
func newOptions(ownNamespace string) (*options, *flags.Groups) {
	o := &options{ownNamespace: ownNamespace, policy: requeue.DefaultPolicy()}
	g := &flags.Groups{}

	serving := g.Add("Serving")
	serving.StringVar(&o.listen, "listen", ":8443", "`address` for admission reviews, by HTTPS, at /mutate")
	serving.StringVar(&o.metricsListen, "metrics-listen", ":8080", "`address` for /livez, /readyz, /metrics and /signing-keys (ids), by plain HTTP")
	serving.BoolVar(&o.pprof, "pprof", false, "serve Go's profiles at /debug/pprof of --metrics-listen as well")
	serving.StringVar(&o.tlsCert, "tls-cert-file", defaultTLSCert, "`file` with the serving certificate; followed as it changes")
	serving.StringVar(&o.tlsKey, "tls-private-key-file", defaultTLSKey, "`file` with the certificate's private key; followed as it changes")
	serving.StringVar(&o.selfSigned, "self-signed-secret", "", "instead of the files: `name` of a Secret beside the webhook that keeps an authority of its own, which signs what it serves by; without data the first replica fills it")
	serving.StringVar(&o.injectInto, "inject-ca-into", "", "with --self-signed-secret: `name` of the MutatingWebhookConfiguration whose caBundle is kept right (default: somebody else sees to it)")
	serving.StringVar(&o.serviceName, "service-name", "airflow-requeue-webhook", "with --self-signed-secret: `name` of the Service that the API server reaches the webhook by")
	serving.IntVar(&o.maxReviews, "max-concurrent-reviews", 100, "`number` of reviews that may be under way; the pods of others go unheld, at once. 100 of large pods take a core a second, half of what the API server waits")
	serving.DurationVar(&o.shutdownDelay, "shutdown-delay", 5*time.Second, "how long to serve on after SIGTERM, not ready, while endpoints drain")

	scope := g.Add("Whose pods are held")
	scope.StringVar(&o.installation, "installation", "airflow-requeue", "`name` of this installation, where a cluster has several")
	scope.StringSliceVar(&o.namespaces, "namespace", list(ownNamespace), "`namespace` that Airflow puts worker pods in; repeatable")
	scope.StringArrayVar(&o.airflowUsers, "airflow-user", nil, "`user` that Airflow's scheduler creates pods as, such as system:serviceaccount:airflow:airflow-scheduler; repeatable")
	scope.StringArrayVar(&o.airflowGroups, "airflow-group", nil, "`group` of such users; repeatable. A user or a group is needed")
	scope.StringVar(&o.watcherUser, "watcher-user", accountOf(ownNamespace), "`user` of the watcher, whose replacements pass when their seal is good")
	scope.StringVar(&o.signingKeys, "signing-keys-dir", "/etc/airflow-requeue/signing-keys", "`directory` with the keys that seal stamps: file current names the file of the key that signs; followed as it changes")

	scope.StringVar(&o.mode, "mode", modeEnforce, "enforce, or observe: hold nothing, and have the watcher say what would become of each pod")
	scope.BoolVar(&o.anyAirflow, "hold-unsupported-airflow", false, "hold pods of an Airflow before "+requeue.OldestAirflow().String()+" as well; only where its cncf.kubernetes provider is 10.0.1 or later")

	leader := g.Add("The watcher that leads")
	leader.StringVar(&o.leaseNamespace, "lease-namespace", ownNamespace, "`namespace` of the watcher's Lease")
	leader.StringVar(&o.leaseName, "lease-name", "", "`name` of the watcher's Lease (default: the installation's)")
	leader.IntVar(&o.shards, "shards", 1, "`number` of parts that the namespaces are split into, each with a watcher of its own that leads; give all watchers the same")
	leader.DurationVar(&o.leaseMaxAge, "lease-max-age", 30*time.Second, "pods are held for as long after a renewal of the Lease was seen")
	leader.DurationVar(&o.releaseAfter, "no-leader-release-after", time.Minute, "lift every hold (of the shard) when no renewal was seen for this long, and again each time it has passed")

	flags.AddPolicyFlags(g.Add("Policy: defaults for pods without tuning annotations; give the watcher the same"), &o.policy)

	process := g.Add("Process")
	process.StringVar(&o.kubeconfig, "kubeconfig", "", "`file` with access to the API server (default: the pod's own access)")
	flags.AddLogFlags(process, &o.log)
	return o, g
}

func list(namespace string) []string {
	if namespace == "" {
		return nil
	}
	return []string{namespace}
}

func accountOf(namespace string) string {
	if namespace == "" {
		return ""
	}
	return "system:serviceaccount:" + namespace + ":airflow-requeue-watcher"
}

// complete fills in the defaults that depend on other flags.
func (o *options) complete() {
	if o.leaseName == "" {
		o.leaseName = o.installation
	}
}

// minLeaseAge is room for a watcher's renewal, a look at it, and one that fails.
const minLeaseAge = 5 * time.Second

// validate says all that is wrong, and what would be right.
func (o *options) validate() error {
	var errs []error
	must := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	for _, f := range []struct{ name, value, what string }{
		{"listen", o.listen, "an address such as :8443"},
		{"metrics-listen", o.metricsListen, "an address such as :8080"},
		{"tls-cert-file", o.tlsCert, "the serving certificate's file, or --self-signed-secret"},
		{"tls-private-key-file", o.tlsKey, "the private key's file, or --self-signed-secret"},
		{"signing-keys-dir", o.signingKeys, "the directory where the Secret with the signing keys is mounted"},
		{"lease-namespace", o.leaseNamespace, "the watcher's namespace, or set POD_NAMESPACE"},
		{"watcher-user", o.watcherUser, "the watcher's account, or set POD_NAMESPACE"},
	} {
		must(f.value != "", "--%s is empty: give %s", f.name, f.what)
	}
	must(len(validation.IsDNS1123Label(o.installation)) == 0,
		"--installation=%s: it names objects and is the value of a label: use up to 63 of a-z, 0-9 and '-'", o.installation)
	must(len(o.namespaces) > 0 && !slices.Contains(o.namespaces, ""), "--namespace is missing or empty: name where Airflow puts worker pods")
	for _, ns := range o.namespaces {
		must(ns != "kube-system", "--namespace=kube-system: never; run Airflow's workers elsewhere")
	}
	must(len(o.airflowUsers)+len(o.airflowGroups) > 0,
		"--airflow-user or --airflow-group is needed: name the account that Airflow's scheduler creates pods with, "+
			"such as --airflow-user=system:serviceaccount:airflow:airflow-scheduler")
	must(!slices.Contains(o.airflowUsers, "") && !slices.Contains(o.airflowGroups, ""), "--airflow-user and --airflow-group must not be empty")
	must(!slices.Contains(o.airflowUsers, o.watcherUser), "--airflow-user and --watcher-user are both %s: give each its own account", o.watcherUser)
	must(o.mode == modeEnforce || o.mode == modeObserve, "--mode=%s: use %s or %s", o.mode, modeEnforce, modeObserve)
	must(o.shards >= 1, "--shards=%d: use 1, or how many watchers share the namespaces", o.shards)
	must(o.leaseMaxAge >= minLeaseAge, "--lease-max-age=%s: use %s or more, time to see a renewal", o.leaseMaxAge, minLeaseAge)
	must(o.releaseAfter >= o.leaseMaxAge, "--no-leader-release-after=%s: use --lease-max-age (%s) or more: pods may be held until then",
		o.releaseAfter, o.leaseMaxAge)
	must(o.maxReviews > 0, "--max-concurrent-reviews=%d: use 1 or more", o.maxReviews)
	must(o.shutdownDelay >= 0, "--shutdown-delay=%s: use 0 or more", o.shutdownDelay)
	errs = append(errs, o.validateCertificate(), flags.ValidatePolicy(o.policy))
	return errors.Join(errs...)
}

// parse reads arguments; help is not empty where it was asked for.
func parse(args []string, ownNamespace string) (o *options, help string, err error) {
	o, groups := newOptions(ownNamespace)
	help, err = groups.Parse("airflow-requeue-webhook", intro, args)
	if err != nil || help != "" {
		return nil, help, err
	}
	o.complete()
	return o, "", o.validate()
}
