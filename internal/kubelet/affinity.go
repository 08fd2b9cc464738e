package kubelet

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
)

// fits says whether a pod may run on a node, by its node selector and its required node affinity. Resources and taints
// are not played: a test that wants a refusal rejects the pod.
func fits(pod *corev1.Pod, name string, nodeLabels map[string]string) bool {
	if !labels.SelectorFromSet(pod.Spec.NodeSelector).Matches(labels.Set(nodeLabels)) {
		return false
	}
	affinity := pod.Spec.Affinity
	if affinity == nil || affinity.NodeAffinity == nil ||
		affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return true
	}
	for _, term := range affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms {
		if matches(term, name, nodeLabels) {
			return true
		}
	}
	return false
}

// preference is the sum of the weights of the preferred terms that a node matches.
func preference(pod *corev1.Pod, name string, nodeLabels map[string]string) int32 {
	if pod.Spec.Affinity == nil || pod.Spec.Affinity.NodeAffinity == nil {
		return 0
	}
	var sum int32
	for _, term := range pod.Spec.Affinity.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution {
		if matches(term.Preference, name, nodeLabels) {
			sum += term.Weight
		}
	}
	return sum
}

func matches(term corev1.NodeSelectorTerm, name string, nodeLabels map[string]string) bool {
	return matchesAll(term.MatchExpressions, nodeLabels) &&
		matchesAll(term.MatchFields, map[string]string{"metadata.name": name}) &&
		len(term.MatchExpressions)+len(term.MatchFields) > 0 // an empty term matches no node
}

func matchesAll(requirements []corev1.NodeSelectorRequirement, set map[string]string) bool {
	operators := map[corev1.NodeSelectorOperator]selection.Operator{
		corev1.NodeSelectorOpIn:           selection.In,
		corev1.NodeSelectorOpNotIn:        selection.NotIn,
		corev1.NodeSelectorOpExists:       selection.Exists,
		corev1.NodeSelectorOpDoesNotExist: selection.DoesNotExist,
		corev1.NodeSelectorOpGt:           selection.GreaterThan,
		corev1.NodeSelectorOpLt:           selection.LessThan,
	}
	for _, r := range requirements {
		requirement, err := labels.NewRequirement(r.Key, operators[r.Operator], r.Values)
		if err != nil || !requirement.Matches(labels.Set(set)) {
			return false
		}
	}
	return true
}
