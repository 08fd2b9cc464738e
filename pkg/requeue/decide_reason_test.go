package requeue

import (
	corev1 "k8s.io/api/core/v1"
)

// reasonCases are the requeue reasons, first match: each on a pod that deserves a replacement.
func reasonCases() []decisionCase {
	disruption := func(reason, message string) change { return disrupted(corev1.ConditionTrue, reason, message) }
	gc := disruption("DeletionByPodGC", "PodGC: node no longer exists")
	gone := "DeletionByPodGC: PodGC: node no longer exists"
	evicting := disruption("EvictionByEvictionAPI", "Eviction API: evicting")
	evicted := "EvictionByEvictionAPI: Eviction API: evicting"
	onDeletedNode := "deleted on node node-1"
	killed := exited("ContainerStatusUnknown", 137)
	lost := "container base: ContainerStatusUnknown, exit code 137"
	requeued := func(r Reason, message string) Decision { return detach("31", r, message) }
	dead := all(failed, queued)
	return []decisionCase{
		{"ImagePull: the reason that was recorded before we deleted the pod",
			given(dead, deleted(ago(0)), reasonRecorded(ReasonImagePull, "container base: ErrImagePull: 503"), killed),
			requeued(ReasonImagePull, "container base: ErrImagePull: 503")},
		{"StartDeadline: the reason that was recorded before we deleted the pod",
			given(deleted(ago(0)), queued, reasonRecorded(ReasonStartDeadline, "Pending for longer than the start deadline of 1m0s")),
			requeued(ReasonStartDeadline, "Pending for longer than the start deadline of 1m0s")},
		{"a recorded reason goes before a lost node", given(dead, deleted(ago(0)), reasonRecorded(ReasonImagePull, "x"), gc), requeued(ReasonImagePull, "x")},
		{"a recorded reason and its message do not count before the delete",
			given(dead, reasonRecorded(ReasonImagePull, "x"), statusReason("OutOfcpu", "")), requeued(ReasonKubeletRejected, "OutOfcpu")},

		{"NodeLost: PodGC says that the node is gone", given(dead, gc), requeued(ReasonNodeLost, gone)},
		{"a lost node goes before a rejection", given(dead, gc, statusReason("NodeAffinity", "")), requeued(ReasonNodeLost, "NodeAffinity; "+gone)},
		{"a lost node goes before a deletion", given(dead, gc, deleted(ago(0)), killed), requeued(ReasonNodeLost, gone+"; "+lost+"; "+onDeletedNode)},

		{"KubeletRejected: NodeAffinity", given(dead, statusReason("NodeAffinity", rejection)), requeued(ReasonKubeletRejected, inWords)},
		{"KubeletRejected: TaintToleration", given(dead, statusReason("TaintToleration", "")), requeued(ReasonKubeletRejected, "TaintToleration")},
		{"KubeletRejected: OutOfcpu", given(dead, statusReason("OutOfcpu", "")), requeued(ReasonKubeletRejected, "OutOfcpu")},
		{"KubeletRejected: OutOfpods", given(dead, statusReason("OutOfpods", "")), requeued(ReasonKubeletRejected, "OutOfpods")},
		{"KubeletRejected: UnexpectedAdmissionError", given(dead, statusReason("UnexpectedAdmissionError", "")),
			requeued(ReasonKubeletRejected, "UnexpectedAdmissionError")},
		{"KubeletRejected: PodOSNotSupported", given(dead, statusReason("PodOSNotSupported", "")), requeued(ReasonKubeletRejected, "PodOSNotSupported")},
		{"KubeletRejected: the taint that comes after the rejection does not change it",
			given(dead, statusReason("TaintToleration", ""), disruption("DeletionByTaintManager", "")),
			requeued(ReasonKubeletRejected, "TaintToleration; DeletionByTaintManager")},
		{"KubeletRejected: the deletion that comes after the rejection does not change it", given(dead, statusReason("NodeAffinity", rejection), deleted(ago(0))),
			requeued(ReasonKubeletRejected, inWords+"; "+onDeletedNode)},
		{"a pod that had a container was not rejected", given(dead, statusReason("NodeAffinity", ""), killed),
			requeued(ReasonUnknown, "NodeAffinity; "+lost)},
		{"a pod that had an init container was not rejected", given(dead, statusReason("NodeAffinity", ""), initExited("fetch", "ContainerStatusUnknown", 137)),
			requeued(ReasonUnknown, "NodeAffinity; container fetch: ContainerStatusUnknown, exit code 137")},

		{"NodeShutdown: the kubelet ended the pod", given(dead, statusReason("Terminated", "node shutdown"), disruption("TerminationByKubelet", ""), exited("Error", 143)),
			requeued(ReasonNodeShutdown, "Terminated: node shutdown; TerminationByKubelet; container base: Error, exit code 143")},
		{"NodeShutdown: the kubelet did not admit the pod", given(dead, statusReason("NodeShutdown", "")), requeued(ReasonNodeShutdown, "NodeShutdown")},
		{"NodeShutdown: as old kubelets say it", given(dead, statusReason("Shutdown", "")), requeued(ReasonNodeShutdown, "Shutdown")},
		{"a node's shutdown goes before a deletion", given(dead, statusReason("Terminated", ""), deleted(ago(0))),
			requeued(ReasonNodeShutdown, "Terminated; "+onDeletedNode)},

		{"NodePressure: the kubelet evicted the pod", given(dead, statusReason("Evicted", "low on memory"), disruption("TerminationByKubelet", "")),
			requeued(ReasonNodePressure, "Evicted: low on memory; TerminationByKubelet")},
		{"a node under pressure goes before a deletion", given(dead, statusReason("Evicted", ""), deleted(ago(0))),
			requeued(ReasonNodePressure, "Evicted; "+onDeletedNode)},

		{"Evicted: by the eviction API", given(dead, evicting, deleted(ago(0)), killed), requeued(ReasonEvicted, evicted+"; "+lost+"; "+onDeletedNode)},
		{"Evicted: by a taint", given(dead, disruption("DeletionByTaintManager", "")), requeued(ReasonEvicted, "DeletionByTaintManager")},
		{"Evicted: by preemption", given(dead, disruption("PreemptionByScheduler", "")), requeued(ReasonEvicted, "PreemptionByScheduler")},
		{"Evicted: before it had a node", given(deleted(ago(0)), queued, evicting), requeued(ReasonEvicted, evicted+"; "+neverHere)},
		{"Evicted: though the container exited 0 on SIGTERM", given(succeededOnNode, queued, evicting, deleted(ago(0)), exited("Completed", 0)),
			requeued(ReasonEvicted, evicted+"; "+onDeletedNode)},
		{"a disruption that was called off is none", given(dead, disrupted(corev1.ConditionFalse, "EvictionByEvictionAPI", "x")),
			requeued(ReasonUnknown, "pod is Failed")},

		{"DeletedUnscheduled: still Pending", given(deleted(ago(0)), queued), requeued(ReasonDeletedUnscheduled, neverHere)},
		{"DeletedUnscheduled: PodGC has set it Failed", given(deleted(ago(0)), phase(corev1.PodFailed), queued), requeued(ReasonDeletedUnscheduled, neverHere)},

		{"Deleted: on its node", given(dead, deleted(ago(0)), killed), requeued(ReasonDeleted, lost+"; "+onDeletedNode)},
		{"Deleted: though the container exited 0 on SIGTERM", given(succeededOnNode, queued, deleted(ago(0))), requeued(ReasonDeleted, onDeletedNode)},
		{"a deletion goes before a provider", given(dead, statusReason("ProviderFailed", ""), deleted(ago(0))),
			requeued(ReasonDeleted, "ProviderFailed; "+onDeletedNode)},

		{"ProviderFailed: a virtual node gave up", given(dead, statusReason("ProviderFailed", "no capacity"), exited("OOMKilled", 137)),
			requeued(ReasonProviderFailed, "ProviderFailed: no capacity; container base: OOMKilled, exit code 137")},

		{"ContainerFailed: out of memory", given(dead, exited("OOMKilled", 137)), requeued(ReasonContainerFailed, "container base: OOMKilled, exit code 137")},
		{"ContainerFailed: a command that is not there, after an init container that is done",
			given(dead, initExited("fetch", "Completed", 0), exited("StartError", 128)),
			requeued(ReasonContainerFailed, "container base: StartError, exit code 128")},
		{"ContainerFailed: an init container", given(dead, initExited("fetch", "OOMKilled", 137), waiting("PodInitializing", "")),
			requeued(ReasonContainerFailed, "container fetch: OOMKilled, exit code 137")},

		{"Unknown: nobody knows how the container ended", given(dead, killed), requeued(ReasonUnknown, lost)},
		{"Unknown: Failed, and nothing says why", given(dead), requeued(ReasonUnknown, "pod is Failed")},
		{"Unknown: Failed, though every container is done", given(dead, exited("Completed", 0)), requeued(ReasonUnknown, "pod is Failed")},
		{"Unknown: Failed for a reason that nobody has heard of", given(dead, statusReason("Gremlins", "in the rack")),
			requeued(ReasonUnknown, "Gremlins: in the rack")},
	}
}
