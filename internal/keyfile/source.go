package keyfile

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"sync/atomic"
	"time"

	"k8s.io/utils/clock"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// reloadInterval is how often the files are read. The kubelet brings a changed Secret within about a minute.
const reloadInterval = 5 * time.Second

// Source gives the keys as the directory has them, or had them when they were last valid.
type Source struct {
	dir    string
	log    *slog.Logger
	clock  clock.WithTicker
	keys   atomic.Pointer[requeue.Keys]
	loaded chan struct{} // closed once there are keys
	failed string        // the last reload's error, so that it is logged once
}

// NewSource loads the keys. It fails where they can't be read; where there are no files yet, so is said in the log, and
// there are no keys before Run has found some.
func NewSource(dir string, log *slog.Logger) (*Source, error) {
	s := &Source{dir: dir, log: log, clock: clock.RealClock{}, loaded: make(chan struct{})}
	keys, err := Load(dir)
	switch {
	case errors.Is(err, errNone):
		s.failed = err.Error()
		log.Info("no signing keys are mounted yet, waiting for them", "dir", dir)
	case err != nil:
		return nil, err
	default:
		close(s.loaded)
	}
	s.keys.Store(&keys)
	return s, nil
}

// Keys returns the last valid keys; none before there are any. They are shared: not to be changed.
func (s *Source) Keys() requeue.Keys { return *s.keys.Load() }

// Ready fails while there are no keys.
func (s *Source) Ready() error { return s.Keys().Validate() }

// Await returns when there are keys; Run is to look for them.
func (s *Source) Await(ctx context.Context) error {
	select {
	case <-s.loaded:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for signing keys in %s: %w", s.dir, context.Cause(ctx))
	}
}

// Run reloads the keys every few seconds until ctx is done.
func (s *Source) Run(ctx context.Context) {
	ticker := s.clock.NewTicker(reloadInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C():
			s.reload()
		}
	}
}

func (s *Source) reload() {
	keys, err := Load(s.dir)
	if err != nil {
		if err.Error() != s.failed {
			s.failed = err.Error()
			s.log.Warn("signing keys not reloaded, the last good ones stay", "error", err)
		}
		return
	}
	if !reflect.DeepEqual(keys, s.Keys()) {
		first := s.Ready() != nil
		s.keys.Store(&keys)
		s.log.Info("signing keys reloaded", "current", keys.Current, "keys", len(keys.Secrets))
		if first {
			close(s.loaded)
		}
	} else if s.failed != "" {
		s.log.Info("signing keys are readable again")
	}
	s.failed = ""
}
