package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/airflow-requeue/airflow-requeue/internal/airflowdb"
	"github.com/airflow-requeue/airflow-requeue/internal/controlplane"
	"github.com/airflow-requeue/airflow-requeue/internal/executor"
	"github.com/airflow-requeue/airflow-requeue/internal/scrape"
)

// stage is all that stands while the scenarios play: servers, processes, accounts, Airflow's database.
type stage struct {
	show *timeline
	dir  string // all files: it goes with the stage
	root string // of the checkout

	servers   *controlplane.ControlPlane
	admin     kubernetes.Interface // plays nodes and people, whom no rights bind
	airflow   kubernetes.Interface // as Airflow's scheduler
	db        *airflowdb.DB
	processes []*process
	webhook   string // addresses of their metrics
	watcher   string
}

func newStage(show *timeline) (*stage, error) {
	dir, err := os.MkdirTemp("", "airflow-requeue-demo-")
	if err != nil {
		return nil, fmt.Errorf("making a folder: %w", err)
	}
	return &stage{show: show, dir: dir}, nil
}

// setUp returns when the webhook holds Airflow's pods. The processes run until the context ends; one that ends before
// cancels it.
func (s *stage) setUp(ctx context.Context, cancel context.CancelCauseFunc, o options) error {
	s.show.say("demo", "builds webhook and watcher, starts etcd and kube-apiserver")
	if err := s.prepare(ctx); err != nil {
		return err
	}
	for user, clients := range map[string]*kubernetes.Interface{"admin": &s.admin, airflowUser: &s.airflow, watcherUser: nil, webhookUser: nil} {
		if err := s.admit(user, clients); err != nil {
			return err
		}
	}
	if err := s.openDatabase(ctx); err != nil {
		return err
	}
	addresses, err := freeAddresses(ctx, 3)
	if err != nil {
		return err
	}
	reviews := addresses[0]
	s.webhook, s.watcher = addresses[1], addresses[2]
	authority, err := s.makeSecrets()
	if err != nil {
		return err
	}
	if err := install(ctx, s.admin, s.root, "https://"+reviews+"/mutate", authority); err != nil {
		return err
	}
	if err := s.startProcesses(ctx, cancel, reviews, o.webhookArgs); err != nil {
		return err
	}
	s.show.say("demo", "starts the webhook and the watcher, each with its own account and rights")
	return s.awaitHold(ctx)
}

// prepare builds and starts what takes seconds, at the same time.
func (s *stage) prepare(ctx context.Context) error {
	gomod, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return fmt.Errorf("finding the checkout: %w", err)
	}
	s.root = filepath.Dir(strings.TrimSpace(string(gomod)))
	if _, err := os.Stat(s.source("cmd", "webhook")); err != nil {
		return errors.New("finding the checkout: run the demo in it")
	}
	log, err := os.Create(s.file("controlplane" + logSuffix))
	if err != nil {
		return fmt.Errorf("starting: %w", err)
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		build := exec.CommandContext(ctx, "go", "build", "-o", s.dir+string(os.PathSeparator), "./cmd/webhook", "./cmd/watcher")
		build.Dir = s.root
		build.Cancel = func() error { return build.Process.Signal(os.Interrupt) } // killed, it would leave its compilers running
		build.WaitDelay = stopTimeout
		if output, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("building webhook and watcher: %w\n%s", err, output)
		}
		s.show.say("demo", "webhook and watcher are built")
		return nil
	})
	group.Go(func() error {
		var err error
		s.servers, err = controlplane.Start(ctx, controlplane.Options{Log: log, Progress: s.show})
		if err == nil {
			s.show.say("demo", "kube-apiserver serves")
		}
		return err
	})
	return group.Wait()
}

// admit makes access for a user, as a kubeconfig and, where one is wanted, as a client.
func (s *stage) admit(user string, client *kubernetes.Interface) error {
	config := s.servers.Config()
	if user != "admin" {
		var err error
		if config, err = s.servers.User(user); err != nil {
			return err
		}
	}
	content, err := s.servers.Kubeconfig(config)
	if err != nil {
		return err
	}
	if err := os.WriteFile(s.kubeconfig(user), content, 0o600); err != nil {
		return fmt.Errorf("writing the kubeconfig of %s: %w", user, err)
	}
	if client == nil {
		return nil
	}
	if *client, err = kubernetes.NewForConfig(quiet(config)); err != nil {
		return fmt.Errorf("making the client of %s: %w", user, err)
	}
	return nil
}

// quiet keeps warnings of the API server, such as that of a tuning annotation, out of the timeline.
func quiet(config *rest.Config) *rest.Config {
	config.WarningHandler = rest.NoWarnings{}
	return config
}

func (s *stage) openDatabase(ctx context.Context) error {
	tables, err := airflowdb.Tables(s.root, string(executor.Airflow3))
	if err != nil {
		return err
	}
	if s.db, err = airflowdb.Create(ctx, s.file("airflow.db"), tables); err != nil {
		return err
	}
	if err := os.WriteFile(s.file("database-url"), []byte(s.db.URL()), 0o600); err != nil {
		return fmt.Errorf("writing the database's URL: %w", err)
	}
	return nil
}

// makeSecrets writes the signing key and the webhook's certificate, and returns the authority to trust.
func (s *stage) makeSecrets() ([]byte, error) {
	ca, err := issue("airflow-requeue-demo", nil)
	if err != nil {
		return nil, err
	}
	serving, err := issue("airflow-requeue-webhook", ca)
	if err != nil {
		return nil, err
	}
	key, err := serving.keyPEM()
	if err != nil {
		return nil, err
	}
	if err := os.Mkdir(s.file("signing-keys"), 0o700); err != nil {
		return nil, fmt.Errorf("making secrets: %w", err)
	}
	signing := []byte(rand.Text() + rand.Text()) // text: a newline at a file's end would not be part of the key
	for name, content := range map[string][]byte{
		"tls.crt": serving.certificatePEM(), "tls.key": key, "signing-keys/k1": signing, "signing-keys/current": []byte("k1"),
	} {
		if err := os.WriteFile(s.file(name), content, 0o600); err != nil {
			return nil, fmt.Errorf("making secrets: %w", err)
		}
	}
	return ca.certificatePEM(), nil
}

func (s *stage) startProcesses(ctx context.Context, cancel context.CancelCauseFunc, reviews string, webhookArgs []string) error {
	both := []string{"--namespace=" + namespace, "--lease-namespace=" + namespace, "--signing-keys-dir=" + s.file("signing-keys"), "--log-format=text"}
	for _, p := range []struct {
		name string
		args []string
	}{
		{"webhook", append([]string{"--kubeconfig=" + s.kubeconfig(webhookUser), "--airflow-user=" + airflowUser, "--watcher-user=" + watcherUser,
			"--listen=" + reviews, "--metrics-listen=" + s.webhook, "--tls-cert-file=" + s.file("tls.crt"),
			"--tls-private-key-file=" + s.file("tls.key"), "--shutdown-delay=0s"}, webhookArgs...)},
		{"watcher", []string{"--kubeconfig=" + s.kubeconfig(watcherUser), "--database-url-file=" + s.file("database-url"),
			"--metrics-listen=" + s.watcher, "--lease-retry-period=500ms"}},
	} {
		started, err := start(ctx, p.name, s.file(p.name), s.file(p.name+logSuffix), append(p.args, both...), func(err error) { cancel(err) })
		if err != nil {
			return err
		}
		s.processes = append(s.processes, started)
	}
	return nil
}

// awaitHold waits until both processes are ready and the webhook has seen that a watcher leads.
func (s *stage) awaitHold(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, time.Minute, errors.New("the webhook does not hold pods after a minute"))
	defer cancel()
	for {
		metrics, err := scrape.Get(ctx, s.webhook)
		if err == nil && metrics.Sum("airflow_requeue_leader_ready") == 1 && ready(ctx, s.webhook) && ready(ctx, s.watcher) {
			s.show.say("webhook", "holds Airflow's pods from now on: the watcher leads and can read the database")
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// tearDown waits for the processes, which the context has ended, stops the servers and removes all files, but for the
// logs where they are to be kept.
func (s *stage) tearDown(keepLogs bool) error {
	for _, p := range s.processes {
		<-p.ended
	}
	var errs []error
	if s.servers != nil {
		errs = append(errs, s.servers.Stop())
	}
	if s.db != nil {
		errs = append(errs, s.db.Close())
	}
	if !keepLogs {
		return errors.Join(append(errs, os.RemoveAll(s.dir))...)
	}
	entries, err := os.ReadDir(s.dir)
	for _, entry := range entries {
		if filepath.Ext(entry.Name()) != logSuffix {
			errs = append(errs, os.RemoveAll(s.file(entry.Name())))
		}
	}
	return errors.Join(append(errs, err)...)
}

const logSuffix = ".log"

func (s *stage) file(name string) string { return filepath.Join(s.dir, name) }

func (s *stage) source(path ...string) string {
	return filepath.Join(append([]string{s.root}, path...)...)
}

func (s *stage) kubeconfig(user string) string {
	return s.file(strings.TrimPrefix(user, account) + ".kubeconfig")
}

// freeAddresses are addresses of loopback that nobody listens on.
func freeAddresses(ctx context.Context, n int) ([]string, error) {
	var addresses []string
	for range n {
		listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("looking for a free port: %w", err)
		}
		defer listener.Close() // all of them at the end, so that no two are the same
		addresses = append(addresses, listener.Addr().String())
	}
	return addresses, nil
}
