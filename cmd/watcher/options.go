package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/transport"

	"github.com/airflow-requeue/airflow-requeue/internal/flags"
	"github.com/airflow-requeue/airflow-requeue/pkg/keyring"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
	"github.com/airflow-requeue/airflow-requeue/pkg/tidb"
	"github.com/airflow-requeue/airflow-requeue/pkg/watcher"
)

const (
	commandRelease = "release"
	commandCheck   = "check"
)

// shortestRotation is room for a key to reach every reader, and for pods that are signed with the one before to end.
const shortestRotation = time.Hour

// databaseFile is where the manifests mount the metadata database's URL.
const databaseFile = "/etc/airflow-requeue/database/url"

const intro = `airflow-requeue-watcher settles the worker pods that airflow-requeue holds: it replaces those that died before
their task started, and gives every other back to Airflow.

  airflow-requeue-watcher [flags]                 watch, compete for the Lease, and settle pods while leading
  airflow-requeue-watcher check [flags]           look at all that the watcher needs, say what is wrong and what to do
                                                  about it, and exit non-zero if anything is; it takes the watch's
                                                  flags, which by kubectl exec are in the variables that its
                                                  container has (see below), and changes nothing, but
                                                  that with --init it makes the first signing key where
                                                  there is none
  airflow-requeue-watcher release --all [flags]   lift every hold and take every finalizer off, then exit: for
                                                  emergencies and uninstalling; so that nothing new is
                                                  held, delete the webhook's configuration before, or
                                                  have it deleted by --webhook-configuration
`

type options struct {
	command string

	installation string
	namespaces   []string
	shards       int
	shard        int
	database     tidb.Source
	signingKeys  string
	keysSecret   string
	rotateEvery  time.Duration

	lease          watcher.LeaseOptions // Name is that of the only shard
	policy         requeue.Policy
	replacedPodTTL time.Duration

	workers       int
	stormBreaker  int
	metricsListen string
	pprof         bool
	kubeconfig    string
	apiQPS        float32
	apiBurst      int
	log           flags.Log

	all            bool          // of release
	unregister     string        // of release
	requestTimeout time.Duration // of release

	init    bool          // of check
	output  string        // of check
	timeout time.Duration // of both
}

// newOptions returns the flags of a command and what they set; ownNamespace, empty when unknown, is a default of some.
func newOptions(command, ownNamespace string) (*options, *flags.Groups) {
	o := &options{command: command, policy: requeue.DefaultPolicy()}
	g := &flags.Groups{}

	scope := g.Add("Whose pods are settled")
	scope.StringVar(&o.installation, "installation", "airflow-requeue", "`name` of this installation, where a cluster has several")
	var namespaces []string
	if ownNamespace != "" {
		namespaces = []string{ownNamespace}
	}
	scope.StringSliceVar(&o.namespaces, "namespace", namespaces, "`namespace` that Airflow puts worker pods in; repeatable")
	flags.FromVariable(scope, "installation", "INSTALLATION")
	flags.FromVariable(scope, "namespace", "NAMESPACES")

	switch command {
	case commandRelease:
		set := g.Add("Release")
		set.BoolVar(&o.all, "all", false, "release all pods of the installation; required, so that it is meant")
		set.StringVar(&o.unregister, "webhook-configuration", "", "`name` of the MutatingWebhookConfiguration to delete before, so that nothing new is held (default: none)")
		set.DurationVar(&o.requestTimeout, "request-timeout", time.Minute, "the API servers' own flag of this name: for as long after that configuration's end pods are looked for that the webhook was asked about")
		set.DurationVar(&o.timeout, "timeout", 5*time.Minute, "give up after this long; what was released stays released")
	case commandCheck:
		set := g.Add("Check")
		set.BoolVar(&o.init, "init", false, "as an init step: make the first signing key where there is none, wait for it to be mounted, and fail only where the watcher can't do its work; what else is wrong warns")
		set.StringVar(&o.output, "output", outputTable, "table or json")
		set.DurationVar(&o.timeout, "timeout", time.Minute, "give up after this long")
		fallthrough
	default:
		o.watchFlags(g, ownNamespace)
	}

	process := g.Add("Process")
	process.StringVar(&o.kubeconfig, "kubeconfig", "", "`file` with access to the API server (default: the pod's own access)")
	process.Float32Var(&o.apiQPS, "kube-api-qps", 5000, "requests a second to the API server; its own priority and fairness is what limits")
	process.IntVar(&o.apiBurst, "kube-api-burst", 10000, "requests at once to the API server")
	flags.AddLogFlags(process, &o.log)
	return o, g
}

func (o *options) watchFlags(g *flags.Groups, ownNamespace string) {
	database := g.Add("Airflow's metadata database")
	database.StringVar(&o.database.File, "database-url-file", "", "`file` with its SQLAlchemy URL, such as the Helm chart's Secret <release>-metadata, key connection, mounted (default: "+databaseFile+", unless the other is given)")
	database.StringVar(&o.database.Env, "database-url-env", "", "environment `variable` with its SQLAlchemy URL")

	keys := g.Add("Seal")
	keys.StringVar(&o.signingKeys, "signing-keys-dir", "/etc/airflow-requeue/signing-keys", "`directory` with the keys that seal stamps, the same as the webhook's; followed as it changes")
	keys.StringVar(&o.keysSecret, "signing-keys-secret", "", "`name` of the Secret that is mounted there, in the Lease's namespace: filled where it is empty, and its keys rotated; none: somebody else brings the keys")
	flags.FromVariable(keys, "signing-keys-secret", "SIGNING_KEYS_SECRET")
	keys.DurationVar(&o.rotateEvery, "signing-keys-rotate-every", 90*24*time.Hour, "how long a key of that Secret signs; 0: until the Secret is annotated with "+keyring.AnnotationRotate)

	lease := g.Add("Leader election")
	lease.StringVar(&o.lease.Namespace, "lease-namespace", ownNamespace, "`namespace` of the Lease")
	lease.StringVar(&o.lease.Name, "lease-name", "", "`name` of the Lease (default: the installation's)")
	lease.DurationVar(&o.lease.Duration, "lease-duration", 15*time.Second, "how long a silent leader keeps the Lease")
	lease.DurationVar(&o.lease.RenewDeadline, "lease-renew-deadline", 10*time.Second, "how long a leader that can't renew goes on; then it exits")
	lease.DurationVar(&o.lease.RetryPeriod, "lease-retry-period", 2*time.Second, "time between two renewals")

	shards := g.Add("Shards: where several watchers share the namespaces")
	shards.IntVar(&o.shards, "shards", 1, "`number` of parts that the namespaces are split into; give the webhook and all watchers the same")
	flags.FromVariable(shards, "shards", "SHARDS")
	shards.IntVar(&o.shard, "shard", noShard, "`part` that this watcher serves, from 0; its Lease is <lease-name>-<part>. Needed where there are several")
	shards.Lookup("shard").DefValue = "0" // for help: it shows no default that is zero

	flags.AddPolicyFlags(g.Add("Policy: defaults for pods without tuning annotations; give the webhook the same"), &o.policy)

	settle := g.Add("Settling")
	settle.DurationVar(&o.replacedPodTTL, "replaced-pod-ttl", time.Hour, "keep replaced pods for this long, at most the last 3 of a task; 0: delete them at once")
	settle.IntVar(&o.workers, "workers", 200, "pods that are settled at the same time; an API server with default flags refuses an account's requests from some 500 on")
	settle.IntVar(&o.stormBreaker, "storm-breaker", 0, "`pods` that may begin to be replaced within any minute; more are reported to Airflow; 0: no limit")
	settle.StringVar(&o.metricsListen, "metrics-listen", ":8080", "`address` for /livez, /readyz, /metrics and /signing-keys (ids), by plain HTTP")
	settle.BoolVar(&o.pprof, "pprof", false, "serve Go's profiles at /debug/pprof there as well")
}

// parse reads arguments; help is not empty where it was asked for.
func parse(args []string, ownNamespace string) (o *options, help string, err error) {
	command := ""
	if len(args) > 0 && (args[0] == commandRelease || args[0] == commandCheck) {
		command, args = args[0], args[1:]
	}
	o, groups := newOptions(command, ownNamespace)
	help, err = groups.Parse("airflow-requeue-watcher", intro, args)
	if err != nil || help != "" {
		return nil, help, err
	}
	if err := o.complete(); err != nil {
		return nil, "", err
	}
	return o, "", o.validate()
}

// noShard is what --shard is where it was not given: two watchers that both serve the first shard leave the second alone.
const noShard = -1

// complete fills in the defaults that depend on other flags and on the process.
func (o *options) complete() error {
	if o.lease.Name == "" {
		o.lease.Name = o.installation
	}
	if o.shards == 1 && o.shard == noShard {
		o.shard = 0
	}
	if o.database == (tidb.Source{}) {
		o.database.File = databaseFile
	}
	host, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("reading the hostname: %w", err)
	}
	o.lease.Identity = fmt.Sprintf("%s_%d", host, os.Getpid())
	return nil
}

// validate says all that is wrong, and what would be right.
func (o *options) validate() error {
	var errs []error
	must := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	must(len(validation.IsDNS1123Label(o.installation)) == 0,
		"--installation=%s: it names objects and is the value of a label: use up to 63 of a-z, 0-9 and '-'", o.installation)
	must(len(o.namespaces) > 0 && !slices.Contains(o.namespaces, ""), "--namespace is missing or empty: name where Airflow puts worker pods")
	must(o.apiQPS > 0 && o.apiBurst > 0, "--kube-api-qps and --kube-api-burst: use more than 0")
	if o.command == commandRelease {
		must(o.all, "release takes --all: it lifts every hold of installation %s", o.installation)
		must(o.timeout > 0, "--timeout=%s: use more than 0", o.timeout)
		must(o.requestTimeout >= 0, "--request-timeout=%s: use 0 or more", o.requestTimeout)
		must(o.unregister == "" || o.timeout > o.requestTimeout, "--timeout=%s: use more than --request-timeout=%s", o.timeout, o.requestTimeout)
		return errors.Join(errs...)
	}
	if o.command == commandCheck {
		must(o.output == outputTable || o.output == outputJSON, "--output=%s: use %s or %s", o.output, outputTable, outputJSON)
		must(o.timeout > 0, "--timeout=%s: use more than 0", o.timeout)
	}
	must(o.database.File == "" || o.database.Env == "",
		"--database-url-file and --database-url-env: give one: it says where the SQLAlchemy URL of Airflow's metadata database is")
	must(o.signingKeys != "", "--signing-keys-dir is empty: give the directory where the Secret with the signing keys is mounted")
	must(o.keysSecret == "" || len(validation.IsDNS1123Subdomain(o.keysSecret)) == 0,
		"--signing-keys-secret=%s: give the name of a Secret, or nothing where somebody else brings the keys", o.keysSecret)
	must(o.rotateEvery == 0 || o.rotateEvery >= shortestRotation,
		"--signing-keys-rotate-every=%s: use %s or more, or 0 for never", o.rotateEvery, shortestRotation)
	must(o.lease.Namespace != "", "--lease-namespace is empty: give the namespace of the Lease, or set POD_NAMESPACE")
	must(o.shards >= 1, "--shards=%d: use 1, or how many watchers share the namespaces", o.shards)
	must(o.shards < 1 || o.shard < o.shards && (o.shard >= 0 || o.command == commandCheck && o.shard == noShard),
		"--shard=%d: use 0 to %d, one for each of the --shards", o.shard, o.shards-1)
	must(o.lease.Duration > o.lease.RenewDeadline && o.lease.RenewDeadline > 2*o.lease.RetryPeriod && o.lease.RetryPeriod > 0,
		"--lease-duration must be above --lease-renew-deadline, and that above twice --lease-retry-period")
	must(o.replacedPodTTL >= 0, "--replaced-pod-ttl=%s: use 0 or more", o.replacedPodTTL)
	must(o.workers > 0, "--workers=%d: use 1 or more", o.workers)
	must(o.stormBreaker >= 0, "--storm-breaker=%d: use 0 for no limit, or how many pods may be replaced within a minute", o.stormBreaker)
	must(o.metricsListen != "", "--metrics-listen is empty: give an address such as :8080")
	errs = append(errs, flags.ValidatePolicy(o.policy))
	return errors.Join(errs...)
}

// client is the API server's, which logs what it has to say where we do. wrap, where given, is around its transport.
func (o *options) client(log *slog.Logger, wrap transport.WrapperFunc) (kubernetes.Interface, error) {
	flags.LogClientGo(log)
	config, err := flags.RESTConfig(o.kubeconfig)
	if err != nil {
		return nil, err
	}
	config.QPS, config.Burst = o.apiQPS, o.apiBurst
	config.ContentType = "application/vnd.kubernetes.protobuf" // typed objects only; replacements go as their own JSON
	config.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	config.UserAgent = "airflow-requeue-watcher"
	config.Wrap(wrap)
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("making the API server's client: %w", err)
	}
	return client, nil
}
