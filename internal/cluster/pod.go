package cluster

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/airflow-requeue/airflow-requeue/internal/programs"
)

// running is a pod whose containers are processes.
type running struct {
	cluster *Cluster
	pod     *corev1.Pod
	hash    string
	dir     string
	once    bool // a Job's: it is not started again

	stop  context.CancelFunc
	parts sync.WaitGroup
	ended chan struct{} // closed when nothing of it is left

	mu    sync.Mutex
	ready bool
	exit  *int
}

// start makes a pod of a template, and runs it until it is stopped, or, once, until its container has ended.
func (c *Cluster) start(ctx context.Context, owner, hash string, template corev1.PodTemplateSpec, once bool) *running {
	c.n++
	pod := &corev1.Pod{ObjectMeta: *template.ObjectMeta.DeepCopy(), Spec: *template.Spec.DeepCopy()}
	pod.Name, pod.Namespace = fmt.Sprintf("%s-%s-%d", owner, hash, c.n), c.Namespace
	pod.Spec.NodeName = "node-of-" + owner
	r := &running{cluster: c, pod: pod, hash: hash, once: once, ended: make(chan struct{})}
	ctx, r.stop = context.WithCancel(ctx)
	ip := c.address()
	go func() {
		defer close(r.ended)
		if err := r.run(ctx, ip); err != nil && ctx.Err() == nil {
			c.t.Errorf("running pod %s: %v", pod.Name, err)
		}
		r.stop()
		r.parts.Wait()
		if !once { // a Job's goes with its Job
			r.remove()
		}
	}()
	return r
}

func (r *running) remove() {
	now := int64(0)
	_ = r.cluster.client.CoreV1().Pods(r.pod.Namespace).Delete(context.Background(), r.pod.Name, metav1.DeleteOptions{GracePeriodSeconds: &now})
	_ = os.RemoveAll(r.dir)
}

// run is the pod's life.
func (r *running) run(ctx context.Context, ip string) (err error) {
	pods := r.cluster.client.CoreV1().Pods(r.pod.Namespace)
	if r.pod, err = pods.Create(ctx, r.pod, metav1.CreateOptions{}); err != nil {
		return err
	}
	if r.dir, err = os.MkdirTemp("", "airflow-requeue-pod-"); err != nil {
		return err
	}
	r.pod.Status = corev1.PodStatus{Phase: corev1.PodPending, PodIP: ip, PodIPs: []corev1.PodIP{{IP: ip}}, HostIP: ip, HostIPs: []corev1.HostIP{{IP: ip}}}
	r.tell(ctx, corev1.PodPending, false)
	paths, ok := r.mounted(ctx)
	if !ok {
		return nil
	}
	access, err := r.access(ctx)
	if err != nil {
		return err
	}
	for _, c := range r.pod.Spec.InitContainers {
		if code, err := r.restarted(ctx, c, paths, access, func(code int) bool { return code != 0 }); code != 0 || err != nil || ctx.Err() != nil {
			return err
		}
	}
	code, err := r.restarted(ctx, r.pod.Spec.Containers[0], paths, access, func(int) bool { return !r.once })
	if err == nil && ctx.Err() == nil {
		r.mu.Lock()
		r.exit = &code
		r.mu.Unlock()
	}
	return err
}

// restarted runs a container as often as it ends and is to be started again.
func (r *running) restarted(ctx context.Context, c corev1.Container, paths map[string]string, access string, again func(code int) bool) (code int, err error) {
	for {
		code, err = r.container(ctx, c, paths, access)
		if err != nil || ctx.Err() != nil || !again(code) || !pause(ctx, r.cluster.Interval) {
			return code, err
		}
	}
}

// container runs a container until it ends, or is stopped as the kubelet does it.
func (r *running) container(ctx context.Context, c corev1.Container, paths map[string]string, access string) (code int, err error) {
	variables, pairs, err := Environment(c, r.pod)
	if err != nil {
		return 0, err
	}
	program, ok := r.cluster.Programs[c.Image]
	if !ok {
		return 0, fmt.Errorf("image %s can't be pulled", c.Image)
	}
	args := append(arguments(c, r.pod, pairs, paths), append(slices.Clone(r.cluster.Flags[c.Name]), "--kubeconfig="+access)...)
	process := programs.StartIn(r.cluster.t, &r.cluster.Log, variables, program, args...)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var probing sync.WaitGroup
	if c.ReadinessProbe != nil {
		probing.Go(func() { r.probe(ctx, c) })
	}
	select {
	case <-ctx.Done():
		r.tell(context.WithoutCancel(ctx), corev1.PodRunning, false)
		timer := time.AfterFunc(time.Duration(*r.pod.Spec.TerminationGracePeriodSeconds)*time.Second, process.Kill)
		process.Stop()
		timer.Stop()
	case <-process.Ended:
		r.tell(ctx, corev1.PodRunning, false)
	}
	cancel()
	probing.Wait()
	return process.Exit(), nil
}

// probe asks a container whether it is ready, until it ends.
func (r *running) probe(ctx context.Context, c corev1.Container) {
	url := ""
	for _, p := range c.Ports {
		if p.Name == c.ReadinessProbe.HTTPGet.Port.StrVal {
			url = fmt.Sprintf("http://%s:%d%s", r.pod.Status.PodIP, p.ContainerPort, c.ReadinessProbe.HTTPGet.Path)
		}
	}
	was := false
	for pause(ctx, r.cluster.Interval) {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			r.cluster.t.Errorf("probing: %v", err)
			return
		}
		ready := false
		if response, err := http.DefaultClient.Do(request); err == nil {
			_ = response.Body.Close()
			ready = response.StatusCode == http.StatusOK
		}
		if ready != was && ctx.Err() == nil {
			r.tell(ctx, corev1.PodRunning, ready)
			was = ready
		}
	}
}

// tell writes the pod's status.
func (r *running) tell(ctx context.Context, phase corev1.PodPhase, ready bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	status := corev1.ConditionFalse
	if ready {
		status = corev1.ConditionTrue
	}
	pod := r.pod.DeepCopy()
	pod.ResourceVersion = "" // nobody else writes it
	pod.Status.Phase, pod.Status.Conditions = phase, []corev1.PodCondition{{Type: corev1.PodReady, Status: status}}
	if _, err := r.cluster.client.CoreV1().Pods(pod.Namespace).UpdateStatus(ctx, pod, metav1.UpdateOptions{}); err == nil {
		r.ready = ready
	}
}

func (r *running) isReady() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ready
}

// exitCode is nil until a Job's container has ended.
func (r *running) exitCode() *int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.exit
}

// access writes a kubeconfig with a token of the pod's service account.
func (r *running) access(ctx context.Context) (path string, err error) {
	c := r.cluster
	token, err := c.client.CoreV1().ServiceAccounts(c.Namespace).CreateToken(ctx, r.pod.Spec.ServiceAccountName,
		&authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		return "", err
	}
	config := rest.AnonymousClientConfig(c.servers.Config())
	config.BearerToken = token.Status.Token
	content, err := c.servers.Kubeconfig(config)
	if err != nil {
		return "", err
	}
	path = filepath.Join(r.dir, "kubeconfig")
	return path, os.WriteFile(path, content, 0o600)
}
