package faults

import (
	"slices"

	"k8s.io/client-go/rest"

	"github.com/airflow-requeue/airflow-requeue/internal/programs"
)

// startWatcher runs a watcher against an API server, or against what stands before it, until the test ends. Its Lease is
// short, so that the next watcher takes over within seconds.
func (s *stage) startWatcher(config *rest.Config, flags ...string) *programs.Process {
	s.T.Helper()
	usual := []string{"--lease-duration=3s", "--lease-renew-deadline=2s", "--lease-retry-period=200ms", "--metrics-listen=127.0.0.1:0", "--log-format=text"}
	return programs.Start(s.T, &s.log, shared.Built["watcher"], slices.Concat(s.WatcherFlags(config), usual, flags)...)
}

// keepWatcher runs a watcher, and another one whenever it ends, as a Deployment does. It returns the first.
func (s *stage) keepWatcher(config *rest.Config, flags ...string) *programs.Process {
	s.T.Helper()
	first := s.startWatcher(config, flags...)
	first.Keep(func() *programs.Process { return s.startWatcher(config, flags...) })
	return first
}
