package kubelet

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Script is what becomes of one pod that Run drives: where it runs, then step by step. A deletion ends the script,
// whoever asked for it, and Run finishes the deletion.
type Script struct {
	// Node is where the pod is bound, whether or not it fits; empty leaves it to the scheduler.
	Node string
	// Unschedulable leaves the pod without a node, with this message in its condition PodScheduled.
	Unschedulable string
	// Steps happen one after the other once the pod is bound. A pod is left as the last step leaves it.
	Steps []Step
	// Linger is how long running containers take to answer SIGTERM, by the Kubelet's clock.
	Linger time.Duration
	// Silent is a node that says nothing any more: a deletion is not finished.
	Silent bool
	// Signal is the exit code with which a running container answers SIGTERM; zero means 143, use ExitWell for 0.
	Signal int32
}

// ExitWell as a Script's Signal is a process that catches SIGTERM and exits with 0.
const ExitWell int32 = -1

// Step is one thing that happens to a pod. It returns the pod as written last.
type Step func(ctx context.Context, k *Kubelet, pod *corev1.Pod) (*corev1.Pod, error)

// Default runs a pod to success without delay.
func Default(*corev1.Pod) Script {
	return Script{Steps: []Step{Create(), Start(), Exit(0, "")}}
}

// Wait does nothing for a time, by the Kubelet's clock.
func Wait(d time.Duration) Step {
	return func(ctx context.Context, k *Kubelet, pod *corev1.Pod) (*corev1.Pod, error) {
		return pod, k.wait(ctx, d)
	}
}

// Until does nothing until the channel is closed.
func Until(happened <-chan struct{}) Step {
	return func(ctx context.Context, _ *Kubelet, pod *corev1.Pod) (*corev1.Pod, error) {
		select {
		case <-ctx.Done():
			return pod, ctx.Err()
		case <-happened:
			return pod, nil
		}
	}
}

// Create is Kubelet.Create as a step.
func Create() Step {
	return func(ctx context.Context, k *Kubelet, pod *corev1.Pod) (*corev1.Pod, error) {
		return k.Create(ctx, pod)
	}
}

// Start is Kubelet.Start as a step.
func Start() Step {
	return func(ctx context.Context, k *Kubelet, pod *corev1.Pod) (*corev1.Pod, error) {
		return k.Start(ctx, pod)
	}
}

// Exit is Kubelet.Exit as a step.
func Exit(code int32, reason string) Step {
	return func(ctx context.Context, k *Kubelet, pod *corev1.Pod) (*corev1.Pod, error) {
		return k.Exit(ctx, pod, code, reason)
	}
}

// Reject is Kubelet.Reject as a step.
func Reject(reason, message string) Step {
	return func(ctx context.Context, k *Kubelet, pod *corev1.Pod) (*corev1.Pod, error) {
		return k.Reject(ctx, pod, reason, message)
	}
}

// ImagePull fails to pull the image, the given number of times, with a wait after each.
func ImagePull(message string, times int, each time.Duration) Step {
	return func(ctx context.Context, k *Kubelet, pod *corev1.Pod) (*corev1.Pod, error) {
		for range times {
			var err error
			if pod, err = k.ImagePull(ctx, pod, message); err != nil {
				return pod, err
			}
			if err := k.wait(ctx, each); err != nil {
				return pod, err
			}
		}
		return pod, nil
	}
}

// Waiting is Kubelet.Waiting as a step.
func Waiting(reason, message string) Step {
	return func(ctx context.Context, k *Kubelet, pod *corev1.Pod) (*corev1.Pod, error) {
		return k.Waiting(ctx, pod, reason, message)
	}
}

// FailWith is Kubelet.FailWith as a step.
func FailWith(reason, message string) Step {
	return func(ctx context.Context, k *Kubelet, pod *corev1.Pod) (*corev1.Pod, error) {
		return k.FailWith(ctx, pod, reason, message)
	}
}

// NodePressure is Kubelet.NodePressure as a step.
func NodePressure(message string) Step {
	return func(ctx context.Context, k *Kubelet, pod *corev1.Pod) (*corev1.Pod, error) {
		return k.NodePressure(ctx, pod, message)
	}
}

// NodeShutdown is Kubelet.NodeShutdown as a step.
func NodeShutdown() Step {
	return func(ctx context.Context, k *Kubelet, pod *corev1.Pod) (*corev1.Pod, error) {
		return k.NodeShutdown(ctx, pod)
	}
}

// Evict is Kubelet.Evict as a step: the deletion that it starts ends the script.
func Evict() Step {
	return func(ctx context.Context, k *Kubelet, pod *corev1.Pod) (*corev1.Pod, error) {
		return pod, k.Evict(ctx, pod)
	}
}
