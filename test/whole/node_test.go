package whole_test

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/airflow-requeue/airflow-requeue/internal/kubelet"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// The storm: the first pods of these tasks die before their containers start.
const (
	firstOfStorm = 10
	lastOfStorm  = 22
	storm        = lastOfStorm - firstOfStorm + 1
)

// fortune is what became of a task's pods.
type fortune struct {
	died    time.Time // when its first pod did, and its row was queued; zero when it did not
	started time.Time // when a container of it first ran; zero when none did
	pods    int
}

// script is what a kubelet does with a pod that it sees for the first time.
func (h *half) script(pod *corev1.Pod) kubelet.Script {
	task := pod.Annotations["task_id"]
	number, err := strconv.Atoi(strings.TrimPrefix(task, "task-"))
	if err != nil || requeue.Gated(pod) { // a kubelet sees a gated pod only as it is deleted
		return kubelet.Script{Unschedulable: "no test wants it"}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	fortune := h.of(task)
	fortune.pods++
	if fortune.pods > 1 || number < firstOfStorm || number > lastOfStorm {
		return kubelet.Script{Steps: []kubelet.Step{kubelet.Create(), h.run}}
	}
	deaths := [][]kubelet.Step{
		{kubelet.Create(), h.dies("drained while its container is made"), kubelet.Evict()},
		{h.dies("rejected by its kubelet"), kubelet.Reject("OutOfcpu", "Node didn't have enough resource: cpu")},
		{kubelet.Create(), h.dies("evicted: its node is low on memory"), kubelet.NodePressure("The node was low on resource: memory.")},
		{kubelet.Create(), h.dies("ended: its node shuts down"), kubelet.NodeShutdown()},
	}
	return kubelet.Script{Steps: deaths[number%len(deaths)]}
}

// of is called with the lock held.
func (h *half) of(task string) *fortune {
	if h.fortunes[task] == nil {
		h.fortunes[task] = &fortune{}
	}
	return h.fortunes[task]
}

// dies takes down that a pod is about to die, if its task is queued: no container of it runs, so that its death is
// all that can change this.
func (h *half) dies(how string) kubelet.Step {
	return func(ctx context.Context, _ *kubelet.Kubelet, pod *corev1.Pod) (*corev1.Pod, error) {
		task := pod.Annotations["task_id"]
		var state string
		if err := h.database.Admin.QueryRowContext(ctx, "SELECT state FROM task_instance WHERE task_id = $1", task).Scan(&state); err != nil {
			return pod, fmt.Errorf("reading the row of %s: %w", task, err)
		}
		if state != "queued" {
			return pod, fmt.Errorf("the row of %s is %s as its pod is to die, not queued", task, state)
		}
		h.mu.Lock()
		h.of(task).died = time.Now()
		h.mu.Unlock()
		h.say("%s  its pod is %s", task, how)
		return pod, nil
	}
}

// run is the pod's container: its own command and environment, as a process of this machine.
func (h *half) run(ctx context.Context, k *kubelet.Kubelet, pod *corev1.Pod) (*corev1.Pod, error) {
	pod, err := k.Start(ctx, pod)
	if err != nil {
		return pod, err
	}
	h.mu.Lock()
	if fortune := h.of(pod.Annotations["task_id"]); fortune.started.IsZero() {
		fortune.started = time.Now()
	}
	h.mu.Unlock()
	container := pod.Spec.Containers[0]
	command := append(append([]string{}, container.Command...), container.Args...)
	cmd := exec.CommandContext(ctx, h.environment.Program(command[0]), command[1:]...)
	cmd.Env = []string{"HOSTNAME=" + pod.Name, "HOME=" + h.dir, "PATH=" + filepath.Dir(cmd.Path) + ":/usr/bin:/bin"}
	for _, variable := range container.Env {
		cmd.Env = append(cmd.Env, variable.Name+"="+variable.Value)
	}
	log := h.log(pod.Name)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.WaitDelay = 10 * time.Second
	exit := &exec.ExitError{}
	switch err := cmd.Run(); {
	case ctx.Err() != nil:
		return pod, ctx.Err()
	case errors.As(err, &exit):
		return k.Exit(ctx, pod, int32(exit.ExitCode()), "")
	case err != nil:
		return pod, fmt.Errorf("running the container of pod %s: %w", pod.Name, err)
	}
	return k.Exit(ctx, pod, 0, "")
}
