package airflow_test

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/airflow-requeue/airflow-requeue/internal/kubelet"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// fate is what becomes of a pod.
type fate func(s *stage, key requeue.Key) kubelet.Script

// works is a pod whose task process does its work.
func works(s *stage, key requeue.Key) kubelet.Script { return leaves("success")(s, key) }

// leaves is a pod whose task process ends well, and leaves a state behind.
func leaves(state string) fate {
	return func(s *stage, key requeue.Key) kubelet.Script {
		return steps(kubelet.Create(), kubelet.Start(), s.claim(key), s.leave(key, state), kubelet.Exit(0, ""))
	}
}

// fails is a pod whose task process fails at its work.
func fails(s *stage, key requeue.Key) kubelet.Script {
	return steps(kubelet.Create(), kubelet.Start(), s.claim(key), s.leave(key, "failed"), kubelet.Exit(1, ""))
}

// runsUntil is a pod whose task process works until the channel is closed.
func runsUntil(over <-chan struct{}) fate {
	return func(s *stage, key requeue.Key) kubelet.Script {
		return steps(kubelet.Create(), kubelet.Start(), s.claim(key), kubelet.Until(over), s.leave(key, "success"), kubelet.Exit(0, ""))
	}
}

// breaks is a pod whose container fails before the task process has begun its task.
func breaks(*stage, requeue.Key) kubelet.Script {
	return steps(kubelet.Create(), kubelet.Start(), kubelet.Exit(1, ""))
}

// evicted is a pod that is drained away while its container is made.
func evicted(*stage, requeue.Key) kubelet.Script {
	return steps(kubelet.Create(), kubelet.Evict())
}

// evictedAfter is a pod whose container is being made until the channel is closed, and which is drained away then.
func evictedAfter(now <-chan struct{}) fate {
	return func(*stage, requeue.Key) kubelet.Script {
		return steps(kubelet.Create(), kubelet.Until(now), kubelet.Evict())
	}
}

// worksAfter is a pod whose container is being made until the channel is closed.
func worksAfter(now <-chan struct{}) fate {
	return func(s *stage, key requeue.Key) kubelet.Script {
		return steps(kubelet.Create(), kubelet.Until(now), kubelet.Start(), s.claim(key), s.leave(key, "success"), kubelet.Exit(0, ""))
	}
}

// rejected is a pod that its kubelet does not take.
func rejected(*stage, requeue.Key) kubelet.Script {
	return steps(kubelet.Reject("OutOfcpu", "Node didn't have enough resource: cpu"))
}

// givenUpAfter is a pod whose container is being made until the channel is closed, and which its kubelet gives up then, in
// one write.
func givenUpAfter(now <-chan struct{}) fate {
	return func(*stage, requeue.Key) kubelet.Script {
		return steps(kubelet.Create(), kubelet.Until(now), kubelet.NodePressure("The node was low on resource: memory."))
	}
}

// lost is a pod whose node shuts down while its container is made.
func lost(*stage, requeue.Key) kubelet.Script {
	return steps(kubelet.Create(), kubelet.NodeShutdown())
}

// imageless is a pod whose image cannot be pulled.
func imageless(*stage, requeue.Key) kubelet.Script {
	return steps(kubelet.Create(), kubelet.ImagePull("failed to pull image: 503 Service Unavailable", 1000, time.Second))
}

// unplaced is a pod for which there is no node.
func unplaced(*stage, requeue.Key) kubelet.Script {
	return kubelet.Script{Unschedulable: "0/3 nodes are available: 3 Insufficient cpu."}
}

func steps(s ...kubelet.Step) kubelet.Script { return kubelet.Script{Steps: s} }

// claim is a task process that begins. One that comes to a row that is not queued exits with 1, as Airflow's does.
func (s *stage) claim(key requeue.Key) kubelet.Step {
	return func(ctx context.Context, k *kubelet.Kubelet, pod *corev1.Pod) (*corev1.Pod, error) {
		claimed, err := s.database.Claim(ctx, key, pod.Name)
		if err != nil {
			return pod, err
		}
		if claimed {
			return pod, nil
		}
		if pod, err = k.Exit(ctx, pod, 1, ""); err == nil {
			err = fmt.Errorf("pod %s came to a task that is not queued: %s", pod.Name, key)
		}
		return pod, err
	}
}

// leave is a task process that ends, and leaves a state behind.
func (s *stage) leave(key requeue.Key, state string) kubelet.Step {
	return func(ctx context.Context, _ *kubelet.Kubelet, pod *corev1.Pod) (*corev1.Pod, error) {
		return pod, s.database.Leave(ctx, key, state)
	}
}
