package scenarios

import (
	"github.com/stretchr/testify/assert"
	corev1 "k8s.io/api/core/v1"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// requeued is row 31 of a pod that was taken before its task began, for one of the reasons of a requeue.
func requeued(seen string, reason requeue.Reason, note string, end func(s *stage, pod *corev1.Pod)) scenario {
	return scenario{row: "31", seen: "otherwise, " + seen, want: "requeue, " + string(reason), play: func(s *stage) {
		task := s.queue(graced())
		if reason == requeue.ReasonStartDeadline {
			task.Annotations[requeue.AnnotationStartDeadline] = short.String()
		}
		pod := s.submit(task)
		end(s, pod)
		replacement := s.replaced(pod, reason, note)
		moments := s.record.Of(pod.Name)
		if on := moments[len(moments)-1].Pod.Spec.NodeName; on != "" {
			s.avoids(replacement, on)
		} else {
			assert.Nil(s.T, replacement.Spec.Affinity)
		}
		s.sawNothing()
		// And it runs as any other pod, to its success at the first try.
		replacement = s.started(replacement)
		s.row(task, runs(replacement.Name))
		s.released(replacement)
		s.ok(s.Kubelet.Succeed(s.T.Context(), replacement))
		s.saw("succeeded " + replacement.Name)
	}}
}

// avoids says that a pod prefers other nodes, and requires none.
func (s *stage) avoids(pod *corev1.Pod, name string) {
	s.T.Helper()
	affinity := pod.Spec.Affinity
	if !assert.NotNil(s.T, affinity) || !assert.NotNil(s.T, affinity.NodeAffinity) {
		return
	}
	assert.Nil(s.T, affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution)
	assert.Equal(s.T, []corev1.PreferredSchedulingTerm{{Weight: 100, Preference: corev1.NodeSelectorTerm{
		MatchFields: []corev1.NodeSelectorRequirement{{Key: "metadata.name", Operator: corev1.NodeSelectorOpNotIn, Values: []string{name}}},
	}}}, affinity.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution)
}

func replaced() []scenario {
	return []scenario{
		requeued("its image could not be pulled", requeue.ReasonImagePull, unavailable, func(s *stage, pod *corev1.Pod) {
			s.ok(s.Kubelet.Waiting(s.T.Context(), s.made(pod), "ErrImagePull", unavailable))
			pod = s.deleted(pod, requeue.ReasonImagePull, unavailable)
			s.do(s.Kubelet.Terminate(s.T.Context(), pod, 137))
		}),
		requeued("its start deadline over", requeue.ReasonStartDeadline, "Pending for longer than the start deadline", func(s *stage, pod *corev1.Pod) {
			s.deleted(pod, requeue.ReasonStartDeadline, "Pending for longer than the start deadline")
		}),
		requeued("its node gone", requeue.ReasonNodeLost, "PodGC: node no longer exists", func(s *stage, pod *corev1.Pod) {
			s.do(s.Kubelet.NodeLost(s.T.Context(), s.started(pod)))
		}),
		requeued("rejected by its kubelet, NodeAffinity", requeue.ReasonKubeletRejected, "NodeAffinity: Pod was rejected: no", func(s *stage, pod *corev1.Pod) {
			pod = s.ok(s.Kubelet.Bind(s.T.Context(), pod, node))
			s.ok(s.Kubelet.Reject(s.T.Context(), pod, "NodeAffinity", "no"))
		}),
		requeued("rejected by its kubelet, UnexpectedAdmissionError", requeue.ReasonKubeletRejected, "Pod was rejected: Allocate failed", func(s *stage, pod *corev1.Pod) {
			pod = s.ok(s.Kubelet.Bind(s.T.Context(), pod, node))
			s.ok(s.Kubelet.Reject(s.T.Context(), pod, "UnexpectedAdmissionError", "Allocate failed"))
		}),
		requeued("ended by the shutdown of its node", requeue.ReasonNodeShutdown, "imminent node shutdown", func(s *stage, pod *corev1.Pod) {
			s.ok(s.Kubelet.NodeShutdown(s.T.Context(), s.started(pod)))
		}),
		requeued("evicted by its kubelet", requeue.ReasonNodePressure, "The node was low on resource: memory.", func(s *stage, pod *corev1.Pod) {
			s.ok(s.Kubelet.NodePressure(s.T.Context(), s.made(pod), "The node was low on resource: memory."))
		}),
		requeued("drained in ContainerCreating", requeue.ReasonEvicted, "Eviction API: evicting", func(s *stage, pod *corev1.Pod) {
			s.drain(s.made(pod))
		}),
		requeued("drained while Running", requeue.ReasonEvicted, "container base: Error, exit code 143", func(s *stage, pod *corev1.Pod) {
			s.drain(s.started(pod))
		}),
		requeued("preempted", requeue.ReasonEvicted, "preempting to accommodate a higher priority pod", func(s *stage, pod *corev1.Pod) {
			pod = s.made(pod)
			s.do(s.Kubelet.Preempt(s.T.Context(), pod))
			s.do(s.Kubelet.Terminate(s.T.Context(), pod, 137))
		}),
		requeued("its node tainted NoExecute", requeue.ReasonEvicted, "deleting due to NoExecute taint", func(s *stage, pod *corev1.Pod) {
			pod = s.made(pod)
			s.do(s.Kubelet.EvictByTaint(s.T.Context(), pod))
			s.do(s.Kubelet.Terminate(s.T.Context(), pod, 137))
		}),
		requeued("deleted before it had a node", requeue.ReasonDeletedUnscheduled, "deleted before it had a node", func(s *stage, pod *corev1.Pod) {
			s.delete(pod)
		}),
		requeued("deleted on its node", requeue.ReasonDeleted, "deleted on node "+node, func(s *stage, pod *corev1.Pod) {
			pod = s.made(pod)
			s.delete(pod)
			s.do(s.Kubelet.Terminate(s.T.Context(), pod, 137))
		}),
		requeued("given up by a virtual node", requeue.ReasonProviderFailed, "ProviderFailed: out of capacity", func(s *stage, pod *corev1.Pod) {
			s.ok(s.Kubelet.FailWith(s.T.Context(), s.made(pod), "ProviderFailed", "out of capacity"))
		}),
		requeued("its command can't be run", requeue.ReasonContainerFailed, "container base: StartError, exit code 128", func(s *stage, pod *corev1.Pod) {
			s.ok(s.Kubelet.StartError(s.T.Context(), s.made(pod)))
		}),
		requeued("out of memory", requeue.ReasonContainerFailed, "container base: OOMKilled, exit code 137", func(s *stage, pod *corev1.Pod) {
			s.ok(s.Kubelet.OOMKill(s.T.Context(), s.started(pod)))
		}),
		requeued("Failed, and nothing says why", requeue.ReasonUnknown, "ContainerStatusUnknown", func(s *stage, pod *corev1.Pod) {
			s.ok(s.Kubelet.Kill(s.T.Context(), s.made(pod), 137))
		}),
	}
}
