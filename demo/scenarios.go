package main

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/airflow-requeue/airflow-requeue/internal/kubelet"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// scenario is one task, and what befalls its pods.
type scenario struct {
	name  string // the task's, too
	title string
	// tuning are annotations of the pod.
	tuning map[string]string
	// script is what its node does with a pod, by attempt.
	script func(p *play, attempt int) kubelet.Script
	// befall happens once the first pod is as until says; nil: nothing but the scripts.
	befall func(p *play, ctx context.Context, pod *corev1.Pod) error
	until  func(pod *corev1.Pod) bool

	want result
	got  result
	took []time.Duration // of each recovery
}

// result is what came of a scenario, and is compared whole with what was to come of it.
type result struct {
	pods     int
	outcomes []string // by airflow-requeue
	saw      []string // by the executor
	without  []string // by the executor, were there no hold
	state    requeue.State
	try      int
	burnt    int // retries
}

const (
	nodeA = "node-a"
	nodeB = "node-b"

	pullMessage = "failed to resolve reference \"docker.io/apache/airflow:latest\": " +
		"failed with status code [manifests latest]: 503 Service Unavailable"
)

// success is what comes of a task that succeeds, in the last of its pods.
func success(pods int, without []string, outcomes ...string) result {
	return result{pods: pods, outcomes: outcomes, saw: []string{fmt.Sprintf("pod %d succeeded", pods)}, without: without,
		state: stateSuccess, try: 1}
}

// failure is what comes of a task whose last pod is reported.
func failure(pods int, outcomes ...string) result {
	return result{pods: pods, outcomes: outcomes, saw: []string{fmt.Sprintf("pod %d failed", pods)}, without: []string{failed},
		state: stateUpForRetry, try: 1, burnt: 1}
}

// scenarios are what the demo plays, in this order.
func scenarios() []scenario {
	return []scenario{
		{
			name: "healthy", title: "Nothing goes wrong: its pod is held until the task has started.",
			script: func(p *play, _ int) kubelet.Script { return onNodeA(p.work()...) },
			want:   success(1, []string{succeeded}, "released"),
		},
		{
			name: "drained", title: "Its node is drained while the container is being made.",
			script: firstThen(onNodeA(kubelet.Create())),
			until:  func(pod *corev1.Pod) bool { return len(pod.Status.ContainerStatuses) > 0 },
			befall: (*play).drain,
			want:   success(2, []string{failed}, "replaced (Evicted)", "released"),
		},
		{
			name: "unscheduled", title: "Deleted before it has a node. Left alone, Airflow waits ten minutes.",
			script: firstThen(kubelet.Script{Unschedulable: "0/2 nodes are available: 2 Insufficient cpu."}),
			until:  func(pod *corev1.Pod) bool { return len(pod.Status.Conditions) > 0 },
			befall: (*play).delete,
			want:   success(2, nil, "replaced (DeletedUnscheduled)", "released"),
		},
		{
			name: "rejected", title: "The kubelet has no CPU left for the pod, and rejects it.",
			script: firstThen(onNodeA(kubelet.Wait(pace), kubelet.Reject("OutOfcpu",
				"Node didn't have enough resource: cpu, requested: 1000, used: 63500, capacity: 64000"))),
			want: success(2, []string{failed}, "replaced (KubeletRejected)", "released"),
		},
		{
			name: "image_pull", title: "The registry answers 503, for longer than the pod's grace of 4 s.",
			tuning: map[string]string{requeue.AnnotationImagePullGrace: "4s"},
			script: firstThen(onNodeA(kubelet.Create(), kubelet.Wait(pace), kubelet.ImagePull(pullMessage, 1000, time.Second))),
			want:   success(2, []string{failed}, "deleted (ImagePull)", "replaced (ImagePull)", "released"),
		},
		{
			name: "budget", title: "Evicted twice; max-retries is 1, so now Airflow is told.",
			script: func(*play, int) kubelet.Script {
				return kubelet.Script{Steps: []kubelet.Step{kubelet.Create(), kubelet.Wait(pace), kubelet.Evict()}}
			},
			want: failure(2, "replaced (Evicted)", "reported (Exhausted)"),
		},
		{
			name: "broken", title: "The container exits 1 by itself, so Airflow is told at once.",
			script: func(*play, int) kubelet.Script {
				return onNodeA(kubelet.Create(), kubelet.Wait(pace), kubelet.Start(), kubelet.Wait(pace), kubelet.Exit(1, ""))
			},
			want: failure(1, "reported (ExcludedReason)"),
		},
	}
}

func onNodeA(steps ...kubelet.Step) kubelet.Script { return kubelet.Script{Node: nodeA, Steps: steps} }

// firstThen scripts the first pod; its replacements find a node by themselves and get to work.
func firstThen(first kubelet.Script) func(*play, int) kubelet.Script {
	return func(p *play, attempt int) kubelet.Script {
		if attempt == 0 {
			return first
		}
		return kubelet.Script{Steps: p.work()}
	}
}
