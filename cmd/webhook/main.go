// Command webhook is airflow-requeue-webhook: it holds Airflow's worker pods as they are created.
package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/clock"

	"github.com/airflow-requeue/airflow-requeue/internal/flags"
	"github.com/airflow-requeue/airflow-requeue/internal/httpserve"
	"github.com/airflow-requeue/airflow-requeue/internal/keyfile"
	"github.com/airflow-requeue/airflow-requeue/pkg/keyring"
	"github.com/airflow-requeue/airflow-requeue/pkg/mutate"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
	"github.com/airflow-requeue/airflow-requeue/pkg/watcher"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "airflow-requeue-webhook:", err)
		os.Exit(1)
	}
}

// run serves until ctx is done, and then for the shutdown delay. It writes help to stdout and logs to stderr.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o, help, err := parse(args, flags.OwnNamespace())
	if err != nil {
		return err
	}
	if help != "" {
		_, err := io.WriteString(stdout, help)
		return err
	}
	log, err := o.log.New(stderr)
	if err != nil {
		return err
	}
	flags.LogClientGo(log)
	p, err := newProgram(o, log)
	if err != nil {
		return err
	}
	return p.serve(ctx)
}

// program is what runs: two servers, and what follows the key files, the certificate and the Leases.
type program struct {
	*options
	slog        *slog.Logger
	registry    *prometheus.Registry
	keys        *keyfile.Source
	certificate certificate
	metrics     *mutate.Metrics
	leaders     map[int]*mutate.Leader // of the shards that have namespaces
	webhook     *mutate.Webhook
}

func newProgram(o *options, log *slog.Logger) (*program, error) {
	keys, err := keyfile.NewSource(o.signingKeys, log)
	if err != nil {
		return nil, err
	}
	sealer, err := requeue.NewSealer(keys.Keys)
	if err != nil {
		return nil, err
	}
	config, err := flags.RESTConfig(o.kubeconfig)
	if err != nil {
		return nil, err
	}
	config.QPS, config.Burst, config.Timeout = 50, 100, 30*time.Second // for lifting holds, thousands at worst
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("making a client: %w", err)
	}
	served, err := newCertificate(o, config, log)
	if err != nil {
		return nil, err
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	metrics := mutate.NewMetrics(registry)
	marker := mutate.Marker{
		Installation:  o.installation,
		Namespaces:    o.namespaces,
		WatcherUser:   o.watcherUser,
		AirflowUsers:  o.airflowUsers,
		AirflowGroups: o.airflowGroups,
		Policy:        o.policy,
		Sealer:        sealer,
		Observe:       o.mode == modeObserve,
		AnyAirflow:    o.anyAirflow,
	}
	p := &program{
		options:     o,
		slog:        log,
		registry:    registry,
		keys:        keys,
		certificate: served,
		metrics:     metrics,
		leaders:     follow(client, o, metrics, log),
	}
	p.webhook = &mutate.Webhook{Mark: marker.Mark, Ready: p.ready, Metrics: metrics, Log: log}
	return p, nil
}

// follow makes the Leaders, by shard. Nobody needs that of a shard without a namespace.
func follow(client kubernetes.Interface, o *options, metrics *mutate.Metrics, log *slog.Logger) map[int]*mutate.Leader {
	leaders := map[int]*mutate.Leader{}
	for shard := range o.shards {
		namespaces := requeue.InShard(o.namespaces, shard, o.shards)
		if len(namespaces) == 0 {
			continue
		}
		leaders[shard] = mutate.NewLeader(mutate.LeaderOptions{
			Shard:        shard,
			Leases:       client.CoordinationV1().Leases(o.leaseNamespace),
			Name:         requeue.LeaseOf(o.leaseName, shard, o.shards),
			MaxAge:       o.leaseMaxAge,
			ReleaseAfter: o.releaseAfter,
			Sweep:        sweep(client, o.installation, namespaces, log),
			Metrics:      metrics,
			Log:          log,
			Clock:        clock.RealClock{},
		})
	}
	return leaders
}

// ready reports whether a watcher leads for a namespace and can decide, and there is a key to sign with.
func (p *program) ready(namespace string) bool {
	leader, ok := p.leaders[requeue.Shard(namespace, p.shards)]
	return ok && leader.Ready() && p.keys.Ready() == nil
}

// sweep lifts every hold of the installation in some namespaces, as the watcher's own `release --all` does.
func sweep(client kubernetes.Interface, installation string, namespaces []string, log *slog.Logger) func(context.Context) error {
	return func(ctx context.Context) error {
		opts := watcher.ReleaseOptions{Installation: installation, Namespaces: namespaces, Clock: clock.RealClock{}, Log: log}
		done, err := watcher.ReleaseAll(ctx, client, opts)
		if done != (watcher.Released{}) {
			log.Info("holds lifted", "namespaces", namespaces, "released", done.Released, "reported", done.Reported, "deleted", done.Deleted, "stripped", done.Stripped)
		}
		return err
	}
}

func (p *program) serve(ctx context.Context) error {
	handler := mutate.Bound(mutate.Handler(p.webhook), p.maxReviews, p.metrics)
	var network net.ListenConfig
	reviews, err := network.Listen(ctx, "tcp", p.listen)
	if err != nil {
		return fmt.Errorf("listening: %w", err)
	}
	defer reviews.Close()
	admin, err := network.Listen(ctx, "tcp", p.metricsListen)
	if err != nil {
		return fmt.Errorf("listening: %w", err)
	}
	defer admin.Close()

	answers := httpserve.Admin(p.registry, p.checks(ctx)...)
	answers.Handle("GET "+keyring.Path, keyring.Handler(p.keys.Keys))

	serving, cancel := httpserve.Linger(ctx, p.shutdownDelay)
	defer cancel()
	group, serving := errgroup.WithContext(serving)
	group.Go(func() error { return p.certificate.Run(serving) })
	group.Go(func() error { p.keys.Run(serving); return nil })
	for _, leader := range p.leaders {
		group.Go(func() error { leader.Run(serving); return nil })
	}
	group.Go(func() error {
		return httpserve.Serve(serving, httpserve.New(handler, p.certificate.Config(), p.slog), reviews)
	})
	group.Go(func() error {
		return httpserve.Serve(serving, httpserve.New(httpserve.WithProfiles(answers, p.pprof), nil, p.slog), admin)
	})
	p.slog.Info("serving", "reviews", reviews.Addr().String(), "metrics", admin.Addr().String(), "installation", p.installation,
		"namespaces", p.namespaces, "shards", p.shards, "mode", p.mode)
	context.AfterFunc(ctx, func() { p.slog.Info("shutting down", "delay", p.shutdownDelay) })
	return group.Wait()
}

// checks are what /readyz asks. That a watcher leads is not among them: without a leader this process lets pods through
// and lifts holds, and taken out of its Service it would only make every pod wait for a webhook that nobody answers for.
func (p *program) checks(ctx context.Context) []httpserve.Check {
	checks := []httpserve.Check{
		{Name: "shutdown", Ready: func() error { return context.Cause(ctx) }},
		{Name: "certificate", Ready: p.certificate.Ready},
		{Name: "signing keys", Ready: p.keys.Ready},
	}
	for _, shard := range slices.Sorted(maps.Keys(p.leaders)) {
		checks = append(checks, httpserve.Check{Name: "lease", Ready: p.leaders[shard].Alive})
	}
	return checks
}
