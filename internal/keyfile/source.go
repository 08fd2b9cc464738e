package keyfile

import (
	"context"
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
	failed string // the last reload's error, so that it is logged once
}

// NewSource loads the keys; it fails where there are none to begin with.
func NewSource(dir string, log *slog.Logger) (*Source, error) {
	keys, err := Load(dir)
	if err != nil {
		return nil, err
	}
	s := &Source{dir: dir, log: log, clock: clock.RealClock{}}
	s.keys.Store(&keys)
	return s, nil
}

// Keys returns the last valid keys. They are shared: not to be changed.
func (s *Source) Keys() requeue.Keys { return *s.keys.Load() }

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
		s.keys.Store(&keys)
		s.log.Info("signing keys reloaded", "current", keys.Current, "keys", len(keys.Secrets))
	} else if s.failed != "" {
		s.log.Info("signing keys are readable again")
	}
	s.failed = ""
}
