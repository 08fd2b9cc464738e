package watcher_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/airflow-requeue/airflow-requeue/internal/executor"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// podsOf are the task instance's pods that are there, by name.
func (w *walk) podsOf(s *slot) []*corev1.Pod {
	return slices.DeleteFunc(w.history.There(), func(p *corev1.Pod) bool { return !requeue.SameTaskInstance(p, s.task.Key) })
}

// onPod is an action on one of the task instance's pods that are as wanted, as the API server has it. What it can't do,
// because the pod has changed, is not done.
func onPod(want func(*corev1.Pod) bool, do func(w *walk, s *slot, p *corev1.Pod, pick int) (string, error)) func(*walk, *slot, int) string {
	return func(w *walk, s *slot, pick int) string {
		pods := slices.DeleteFunc(w.podsOf(s), func(p *corev1.Pod) bool { return !want(p) })
		if len(pods) == 0 {
			return ""
		}
		pod := pods[pick%len(pods)]
		live, err := w.client.CoreV1().Pods(w.namespace).Get(w.ctx, pod.Name, metav1.GetOptions{})
		if err != nil || live.UID != pod.UID || !want(live) {
			return ""
		}
		what, err := do(w, s, live, pick)
		if err != nil {
			return ""
		}
		return pod.Name + " " + what
	}
}

func ended(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodFailed || p.Status.Phase == corev1.PodSucceeded
}

func leaving(p *corev1.Pod) bool { return p.DeletionTimestamp != nil }

func bound(p *corev1.Pod) bool { return p.Spec.NodeName != "" }

func alive(p *corev1.Pod) bool { return !ended(p) && !leaving(p) }

func container(p *corev1.Pod) corev1.ContainerState {
	if len(p.Status.ContainerStatuses) == 0 {
		return corev1.ContainerState{}
	}
	return p.Status.ContainerStatuses[0].State
}

func containerRuns(p *corev1.Pod) bool { return !ended(p) && container(p).Running != nil }

// waitsToRun is a pod on its way: to a node, into a container, to Running.
func waitsToRun(p *corev1.Pod) bool {
	return alive(p) && !requeue.Gated(p) && container(p).Running == nil && container(p).Terminated == nil
}

// goesOn takes a pod one step on its way.
func goesOn(w *walk, _ *slot, p *corev1.Pod, pick int) (string, error) {
	switch {
	case !bound(p):
		node := fmt.Sprintf("node-%d", pick%3)
		_, err := w.kubelet.Bind(w.ctx, p, node)
		return "is bound to " + node, err
	case len(p.Status.ContainerStatuses) == 0:
		_, err := w.kubelet.Create(w.ctx, p)
		return "is being created", err
	}
	_, err := w.kubelet.Start(w.ctx, p)
	return "starts", err
}

// wakes is the process in a container that starts: it claims the row (PATCH /task-instances/{id}/run of Airflow 3, which
// waits for the row's lock and answers 409 unless the task instance is queued), or exits with 1.
func wakes(w *walk, s *slot, p *corev1.Pod, _ int) (string, error) {
	q := s.of(p)
	if s.processes[string(p.UID)] != nil || q == nil || s.lockedBy != nil {
		return "", errNotNow
	}
	process := &taskProcess{}
	s.processes[string(p.UID)] = process
	if s.there && s.row.ID == q.task.ID && s.row.State == requeue.StateQueued &&
		w.clock.Now().Before(q.task.QueuedAt.Add(executor.TokenLifetime)) {
		process.runs = true
		claimed := s.now() // an earlier queueing's pod may do it: id and try are the same
		claimed.claimed = append(claimed.claimed, p.Name)
		if len(claimed.claimed) > 1 {
			w.breach(s, "one queueing was claimed twice, by %v", claimed.claimed)
		}
		w.set(s, func(row *requeue.TaskInstance) {
			if row.State, row.Hostname = requeue.StateRunning, p.Name; len(s.id)%2 == 0 {
				row.Hostname = p.Status.PodIP
			}
		})
		return "runs the task", nil
	}
	// Else in a pod of an earlier queueing, which Airflow had revoked too late: that is between the two of them.
	if slices.ContainsFunc(q.claimed, func(name string) bool { return name != p.Name && strings.HasPrefix(name, q.pod.Name) }) {
		w.breach(s, "%s was started although the task has run in %v", p.Name, q.claimed)
	}
	process.exiting, process.code = true, 1
	return fmt.Sprintf("may not run the task, which is %q at try %d", s.row.State, s.row.TryNumber), nil
}

// finishes is the end of the task in its process, which tells Airflow first, if it is not killed before.
func finishes(w *walk, s *slot, p *corev1.Pod, pick int) (string, error) {
	process := s.processes[string(p.UID)]
	if process == nil || !process.runs || process.exiting || s.lockedBy != nil {
		return "", errNotNow
	}
	process.exiting = true
	if !s.there || s.row.State != requeue.StateRunning || !isHost(p, s.row.Hostname) {
		process.code = 1
		return "is told that its task is no longer its own", nil
	}
	ends := []struct {
		state requeue.State
		code  int32
	}{{success, 0}, {success, 0}, {deferred, 0}, {deferred, 0}, {toReschedule, 0}, {upForRetry, 1}, {"failed", 1}, {requeue.StateRunning, 137}, {requeue.StateRunning, 1}}
	end := ends[pick%len(ends)]
	process.code = end.code
	if end.state != requeue.StateRunning { // else it is killed and tells nobody
		w.set(s, func(row *requeue.TaskInstance) { row.State = end.state })
	}
	return fmt.Sprintf("ends its task as %q, code %d", end.state, end.code), nil
}

// exits is the kubelet that sees a process's end; the pod's phase follows at once or later.
func exits(w *walk, s *slot, p *corev1.Pod, pick int) (string, error) {
	process := s.processes[string(p.UID)]
	if process == nil || !process.exiting {
		return "", errNotNow
	}
	if pick%2 == 0 {
		_, err := w.kubelet.EndContainers(w.ctx, p, process.code, "")
		return fmt.Sprintf("has its container end with code %d", process.code), err
	}
	_, err := w.kubelet.Exit(w.ctx, p, process.code, "")
	return fmt.Sprintf("exits with code %d", process.code), err
}

// breaks ends a container before its process could do anything, by the pod's own fault or by nobody's.
func breaks(w *walk, s *slot, p *corev1.Pod, pick int) (string, error) {
	if s.processes[string(p.UID)] != nil {
		return "", errNotNow
	}
	how := []struct {
		code   int32
		reason string
	}{{1, ""}, {137, "OOMKilled"}, {128, "StartError"}, {255, "ContainerCannotRun"}}[pick%4]
	s.processes[string(p.UID)] = &taskProcess{}
	_, err := w.kubelet.Exit(w.ctx, p, how.code, how.reason)
	return fmt.Sprintf("breaks before its process is up, code %d %s", how.code, how.reason), err
}

// isTaken ends a pod by the doing of its node or of the cluster.
func isTaken(w *walk, _ *slot, p *corev1.Pod, pick int) (string, error) {
	var err error
	switch pick % 5 {
	case 0:
		return "is evicted", w.kubelet.Evict(w.ctx, p)
	case 1:
		return "is preempted", w.kubelet.Preempt(w.ctx, p)
	case 2:
		return "is taken by a taint", w.kubelet.EvictByTaint(w.ctx, p)
	case 3:
		_, err = w.kubelet.Disrupt(w.ctx, p, "EvictionByEvictionAPI", "announced alone")
		return "is about to be disrupted", err
	}
	return "is deleted by a person", w.scheduler.Delete(w.ctx, p.Name)
}

func isTakenByItsNode(w *walk, _ *slot, p *corev1.Pod, pick int) (string, error) {
	var err error
	switch pick % 3 {
	case 0:
		_, err = w.kubelet.NodePressure(w.ctx, p, "The node was low on resource: memory.")
		return "is evicted by its kubelet", err
	case 1:
		_, err = w.kubelet.NodeShutdown(w.ctx, p)
		return "ends as its node shuts down", err
	}
	return "loses its node", w.kubelet.NodeLost(w.ctx, p)
}

func isRejected(w *walk, _ *slot, p *corev1.Pod, pick int) (string, error) {
	reason := []string{"NodeAffinity", "OutOfcpu", "TaintToleration", "UnexpectedAdmissionError"}[pick%4]
	_, err := w.kubelet.Reject(w.ctx, p, reason, "no")
	return "is rejected: " + reason, err
}

func pullsInVain(w *walk, _ *slot, p *corev1.Pod, pick int) (string, error) {
	var err error
	switch pick % 4 {
	case 0:
		_, err = w.kubelet.Waiting(w.ctx, p, "CreateContainerConfigError", "secret not found")
		return "misses its config", err
	case 1:
		_, err = w.kubelet.ImagePull(w.ctx, p, "rpc error: code = NotFound desc = no such image")
		return "finds no image", err
	}
	_, err = w.kubelet.ImagePull(w.ctx, p, "503 Service Unavailable")
	return "can't pull its image", err
}

// isTerminated is the kubelet of a pod that was deleted; it takes the object away when nothing holds it.
func isTerminated(w *walk, s *slot, p *corev1.Pod, pick int) (string, error) {
	var code int32 = 143
	if process := s.processes[string(p.UID)]; process != nil {
		process.exiting = true
	} else if pick%4 == 0 {
		code = 0 // nothing was begun yet: the signal ends it well
	}
	if pick%3 == 0 && !ended(p) {
		_, err := w.kubelet.Kill(w.ctx, p, code)
		return "is killed by its kubelet", err
	}
	return "is terminated by its kubelet", w.kubelet.Terminate(w.ctx, p, code)
}

func isCollected(w *walk, _ *slot, p *corev1.Pod, _ int) (string, error) {
	return "is collected as garbage", w.kubelet.CollectGarbage(w.ctx, p)
}

// kubeletsFinish has every kubelet do what it would do by itself sooner or later, so that the walk can come to rest.
func (w *walk) kubeletsFinish() {
	for _, s := range w.slots {
		for _, p := range w.podsOf(s) {
			ctx, done := context.WithTimeout(w.ctx, 10*time.Second)
			switch {
			case leaving(p) && bound(p):
				_ = w.kubelet.Terminate(ctx, p, 143)
			case leaving(p) && !requeue.Tracked(p):
				_ = w.kubelet.CollectGarbage(ctx, p)
			case !ended(p) && container(p).Terminated != nil:
				_, _ = w.kubelet.EndPod(ctx, p)
			case containerRuns(p) && s.processes[string(p.UID)] != nil && s.processes[string(p.UID)].exiting:
				_, _ = w.kubelet.Exit(ctx, p, s.processes[string(p.UID)].code, "")
			}
			done()
		}
	}
}

func (w *walk) slot(id string) *slot {
	i := slices.IndexFunc(w.slots, func(s *slot) bool { return s.id == id })
	if i < 0 {
		return nil
	}
	return w.slots[i]
}

func isDisrupted(p *corev1.Pod) bool {
	return slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.DisruptionTarget && c.Status == corev1.ConditionTrue && strings.Contains(c.Message, "announced alone")
	})
}
