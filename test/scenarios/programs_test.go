package scenarios

import (
	"slices"

	"k8s.io/client-go/rest"

	"github.com/airflow-requeue/airflow-requeue/internal/programs"
)

// start runs a program; all that it says goes to the installation's log.
func (i *installation) start(program string, args ...[]string) *programs.Process {
	i.T.Helper()
	saying := []string{"--log-format=text", "--log-level=debug", "--metrics-listen=127.0.0.1:0"}
	return programs.Start(i.T, &i.log, i.built[program], slices.Concat(append(args, saying)...)...)
}

// startWatcher runs a watcher against the API server, or against what stands before it.
func (i *installation) startWatcher(config *rest.Config, flags ...string) *programs.Process {
	i.T.Helper()
	return i.start("watcher", i.WatcherFlags(config), flags)
}

// startWebhook runs the webhook and registers it for the namespace. Its own timeout is 2 s; a busy machine must not let a
// pod through unheld.
func (i *installation) startWebhook(flags ...string) *programs.Process {
	i.T.Helper()
	return i.start("webhook", i.RegisterWebhook(30), flags)
}
