package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"

	"github.com/airflow-requeue/airflow-requeue/internal/httpserve"
	"github.com/airflow-requeue/airflow-requeue/internal/keyfile"
	"github.com/airflow-requeue/airflow-requeue/pkg/keyring"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
	"github.com/airflow-requeue/airflow-requeue/pkg/tidb"
	"github.com/airflow-requeue/airflow-requeue/pkg/watcher"
)

// watch runs until the context ends or the Lease is lost.
func watch(ctx context.Context, o *options, log *slog.Logger) error {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	client, err := listenedTo(o, registry, log)
	if err != nil {
		return err
	}
	keys, sealer, err := openKeys(o.signingKeys, log)
	if err != nil {
		return err
	}
	db, err := openDatabase(ctx, o.database, log)
	if err != nil {
		return err
	}
	defer db.Close()
	listener, err := listen(ctx, o)
	if err != nil {
		return err
	}

	broadcaster := events.NewBroadcaster(&events.EventSinkImpl{Interface: client.EventsV1()})
	defer broadcaster.Shutdown()
	if err := broadcaster.StartRecordingToSinkWithContext(ctx); err != nil {
		return fmt.Errorf("starting the event recorder: %w", err)
	}
	namespaces, lease := o.served(log)
	w, batcher, err := newWatcher(o, namespaces, db, watcher.Dependencies{Client: client, Sealer: sealer, Log: log,
		Events: broadcaster.NewRecorder(scheme.Scheme, "airflow-requeue-watcher"), Registry: o.labelled(registry)})
	if err != nil {
		return err
	}
	keeper, err := newKeeper(o, client, keys, o.signed(client, w), registry, log)
	if err != nil {
		return err
	}

	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { keys.Run(ctx); return nil })
	group.Go(func() error { batcher.Run(ctx); return nil })
	group.Go(func() error { trim(ctx); return nil })
	group.Go(func() error {
		return httpserve.Serve(ctx, httpserve.New(httpserve.WithProfiles(answers(registry, w, client, keys), o.pprof), nil, log), listener)
	})
	group.Go(func() error {
		if err := awaitKeys(ctx, keeper, keys); err != nil {
			return err
		}
		if err := w.Start(ctx); err != nil {
			return err
		}
		log.Info("watching", "installation", o.installation, "namespaces", namespaces, "shard", o.shard, "shards", o.shards, "database", db.Schema().String(),
			"metrics", listener.Addr().String())
		return watcher.RunElected(ctx, client, lease, w.Ready, o.lead(w, keeper), log)
	})
	if err := group.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	log.Info("stopped")
	return nil
}

// served are the namespaces of this watcher's shard, and its Lease. One without a namespace leads all the same: another
// namespace may be in its shard.
func (o *options) served(log *slog.Logger) ([]string, watcher.LeaseOptions) {
	namespaces, lease := requeue.InShard(o.namespaces, o.shard, o.shards), o.lease
	lease.Name = requeue.LeaseOf(lease.Name, o.shard, o.shards)
	if len(namespaces) == 0 {
		log.Warn("no namespace is in this shard", "shard", o.shard, "shards", o.shards, "namespaces", o.namespaces)
	}
	return namespaces, lease
}

// labelled has the watcher's metrics name its shard.
func (o *options) labelled(registry prometheus.Registerer) prometheus.Registerer {
	return prometheus.WrapRegistererWith(prometheus.Labels{"shard": strconv.Itoa(o.shard)}, registry)
}

// newWatcher returns a Watcher, and what reads the rows for it, which is to run.
func newWatcher(o *options, namespaces []string, db *tidb.DB, d watcher.Dependencies) (*watcher.Watcher, *tidb.Batcher, error) {
	batcher := tidb.NewBatcher(db.Lookup, min(o.workers, tidb.MaxRefs)) // when all workers wait, nobody else will come
	d.Rows, d.Clock = batcher, clock.RealClock{}
	w, err := watcher.New(watcher.Options{Installation: o.installation, Namespaces: namespaces, Policy: o.policy,
		ReplacedPodTTL: o.replacedPodTTL, Workers: o.workers, StormBreaker: o.stormBreaker}, d)
	if err != nil {
		return nil, nil, err
	}
	batcher.Observe = func(q tidb.Query) { w.Query(q.Took, q.Refs, q.Err) }
	return w, batcher, nil
}

func listen(ctx context.Context, o *options) (net.Listener, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", o.metricsListen)
	if err != nil {
		return nil, fmt.Errorf("listening on --metrics-listen=%s: %w", o.metricsListen, err)
	}
	return listener, nil
}

// listenedTo is the API server's client, and a gauge that says whether that answers.
func listenedTo(o *options, registry prometheus.Registerer, log *slog.Logger) (kubernetes.Interface, error) {
	api, err := watcher.NewAPIServer(clock.RealClock{}, log, registry)
	if err != nil {
		return nil, fmt.Errorf("registering metrics: %w", err)
	}
	return o.client(log, api.Wrap)
}

// openDatabase connects to the metadata database; a schema that is not understood is an error here and not later.
func openDatabase(ctx context.Context, source tidb.Source, log *slog.Logger) (*tidb.DB, error) {
	url, err := source.URL()
	if err != nil {
		return nil, err
	}
	db, err := tidb.Open(ctx, url)
	if err != nil {
		return nil, err
	}
	for _, warning := range db.Schema().Warnings {
		log.Warn("metadata database", "warning", warning)
	}
	return db, nil
}

// answers are what --metrics-listen is asked for.
func answers(registry prometheus.Gatherer, w *watcher.Watcher, client kubernetes.Interface, keys *keyfile.Source) http.Handler {
	all := httpserve.Admin(registry, checks(w, client, keys)...)
	all.Handle("GET "+keyring.Path, keyring.Handler(keys.Keys))
	return all
}

// apiTimeout bounds the question whether the API server answers.
const apiTimeout = 2 * time.Second

// checks are what readiness depends on, each by its name. The metadata database is not asked, it is remembered how the
// last read went: at rest there are no queries.
func checks(w *watcher.Watcher, client kubernetes.Interface, keys *keyfile.Source) []httpserve.Check {
	return []httpserve.Check{
		{Name: "signing keys", Ready: keys.Ready},
		{Name: "database", Ready: w.DatabaseError},
		{Name: "api", Ready: func() error {
			ctx, cancel := context.WithTimeout(context.Background(), apiTimeout)
			defer cancel()
			return client.Discovery().RESTClient().Get().AbsPath("/version").Do(ctx).Error()
		}},
		{Name: "informers", Ready: func() error {
			if !w.Synced() {
				return errors.New("the held pods are not all listed yet")
			}
			return nil
		}},
	}
}
