package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/clock"

	"github.com/airflow-requeue/airflow-requeue/internal/httpserve"
	"github.com/airflow-requeue/airflow-requeue/internal/keyfile"
	"github.com/airflow-requeue/airflow-requeue/pkg/keyring"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
	"github.com/airflow-requeue/airflow-requeue/pkg/watcher"
)

// mountPatience is how long an init step waits for keys to be mounted: a kubelet brings a changed Secret within about a minute.
const mountPatience = 3 * time.Minute

// openKeys returns what follows the keys of a folder, and what seals with them.
func openKeys(dir string, log *slog.Logger) (*keyfile.Source, *requeue.Sealer, error) {
	keys, err := keyfile.NewSource(dir, log)
	if err != nil {
		return nil, nil, err
	}
	sealer, err := requeue.NewSealer(keys.Keys)
	return keys, sealer, err
}

// newKeeper returns what looks after the Secret with the signing keys; nil where somebody else brings them.
func newKeeper(o *options, client kubernetes.Interface, keys *keyfile.Source, signed keyring.Signed,
	registry prometheus.Registerer, log *slog.Logger) (*keyring.Keeper, error) {
	if o.keysSecret == "" {
		return nil, nil //nolint:nilnil // nobody is needed
	}
	return keyring.NewKeeper(keyring.Options{
		Site:  keyring.Site{Client: client, Installation: o.installation, Namespace: o.lease.Namespace, Secret: o.keysSecret},
		Every: o.rotateEvery, Own: keys.Keys, Signed: signed, Clock: clock.RealClock{}, Log: log, Registry: registry})
}

// awaitKeys returns when keys are mounted. Who waits for them fills an empty Secret meanwhile: nobody can lead yet.
func awaitKeys(ctx context.Context, keeper *keyring.Keeper, keys *keyfile.Source) error {
	var filling sync.WaitGroup
	defer filling.Wait()
	waiting, stop := context.WithCancel(ctx)
	defer stop()
	if keeper != nil && keys.Ready() != nil {
		filling.Go(func() { keeper.FillUntil(waiting) })
	}
	return keys.Await(ctx)
}

// keepsKeys reports whether this watcher's shard looks after the keys of all: the lowest that has a namespace does, since one without
// any need not have a watcher.
func (o *options) keepsKeys() bool {
	return o.shard == requeue.FirstShard(o.namespaces, o.shards)
}

// lead settles pods, and looks after the keys.
func (o *options) lead(w *watcher.Watcher, keeper *keyring.Keeper) func(context.Context) {
	if keeper == nil || !o.keepsKeys() {
		return w.Lead
	}
	return func(ctx context.Context) {
		var keeping sync.WaitGroup
		keeping.Go(func() { keeper.Lead(ctx) })
		w.Lead(ctx)
		keeping.Wait()
	}
}

// signed looks at the pods of all shards; w, which knows those of its own, may be nil.
func (o *options) signed(client kubernetes.Interface, w *watcher.Watcher) keyring.Signed {
	return func(ctx context.Context, want func(string) bool) (bool, error) {
		if w != nil && w.Signed(want) {
			return true, nil
		}
		return watcher.Signed(ctx, client, o.installation, o.namespaces, want)
	}
}

// initKeys is the init step's part: it makes the first key of an empty Secret, waits for keys to be mounted, and says meanwhile that it
// has none. Where they can't be read the check says so.
func initKeys(ctx context.Context, o *options, client kubernetes.Interface, log *slog.Logger) error {
	keys, err := keyfile.NewSource(o.signingKeys, log)
	if err != nil || keys.Ready() == nil {
		return nil
	}
	keeper, err := newKeeper(o, client, keys, o.signed(client, nil), nil, log)
	if err != nil {
		return err
	}
	if keeper != nil {
		if err := keeper.Fill(ctx); err != nil {
			return fmt.Errorf("making the first signing key: %w", err)
		}
	}
	listener, err := listen(ctx, o)
	if err != nil {
		return err
	}
	answers := http.NewServeMux()
	answers.Handle("GET "+keyring.Path, keyring.Handler(keys.Keys))
	ctx, cancel := context.WithTimeoutCause(ctx, mountPatience, errors.New("none were mounted within "+mountPatience.String()))
	defer cancel()
	group, serving := errgroup.WithContext(ctx)
	group.Go(func() error { keys.Run(serving); return nil })
	group.Go(func() error { return httpserve.Serve(serving, httpserve.New(answers, nil, log), listener) })
	group.Go(func() error {
		defer cancel()
		return awaitKeys(serving, keeper, keys)
	})
	return group.Wait()
}
