package cluster

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"k8s.io/client-go/kubernetes"

	"github.com/airflow-requeue/airflow-requeue/internal/controlplane"
	"github.com/airflow-requeue/airflow-requeue/internal/programs"
)

// Options say what is played.
type Options struct {
	// Namespace is the one whose Deployments and Jobs are run: an installation's.
	Namespace string
	// Programs are the paths of the programs in images, by the images' whole names.
	Programs map[string]string
	// Flags are more arguments of containers, by their names.
	Flags map[string][]string
	// Interval is between two looks at anything; 200 ms when zero.
	Interval time.Duration
}

// Cluster plays one namespace.
type Cluster struct {
	Options
	// Log has what all containers say.
	Log programs.Log

	t       testing.TB
	servers *controlplane.ControlPlane
	client  kubernetes.Interface
	base    [2]int
	n       int // pods so far

	deployments map[string]*deployment
	jobs        map[string]*job
}

// Play runs what there is in a namespace, as it comes, changes and goes, until the test ends.
func Play(t testing.TB, servers *controlplane.ControlPlane, options Options) *Cluster {
	t.Helper()
	if options.Interval == 0 {
		options.Interval = 200 * time.Millisecond
	}
	client, err := kubernetes.NewForConfig(servers.Config())
	require.NoError(t, err)
	c := &Cluster{Options: options, t: t, servers: servers, client: client, base: [2]int{64 + rand.IntN(128), rand.IntN(256)},
		deployments: map[string]*deployment{}, jobs: map[string]*job{}}
	c.Log.To = t.Output()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	over := make(chan struct{})
	go func() {
		defer close(over)
		for {
			c.look(ctx)
			if !pause(ctx, c.Interval) {
				return
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-over
		c.end()
	})
	return c
}

// address is a pod's: every pod has one of loopback's own, and so the ports that it declares.
func (c *Cluster) address() string {
	return fmt.Sprintf("127.%d.%d.%d", c.base[0], c.base[1], 1+c.n%254)
}

// look takes a step with each Deployment and Job.
func (c *Cluster) look(ctx context.Context) {
	if err := c.lookAtDeployments(ctx); err != nil && ctx.Err() == nil {
		c.t.Errorf("playing Deployments: %v", err)
	}
	if err := c.lookAtJobs(ctx); err != nil && ctx.Err() == nil {
		c.t.Errorf("playing Jobs: %v", err)
	}
}

// end stops all there is.
func (c *Cluster) end() {
	var all []*running
	for _, d := range c.deployments {
		all = append(all, append(d.pods, d.leaving...)...)
	}
	for _, j := range c.jobs {
		all = append(all, j.pods...)
	}
	for _, r := range all {
		r.stop()
	}
	for _, r := range all {
		<-r.ended
	}
}
