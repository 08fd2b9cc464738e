package kubelet

import (
	"testing"

	"github.com/stretchr/testify/assert"
	corev1 "k8s.io/api/core/v1"
)

func TestChoose(t *testing.T) {
	hostname := func(operator corev1.NodeSelectorOperator, values ...string) corev1.NodeSelectorTerm {
		return corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{
			{Key: corev1.LabelHostname, Operator: operator, Values: values},
		}}
	}
	name := func(operator corev1.NodeSelectorOperator, values ...string) corev1.NodeSelectorTerm {
		return corev1.NodeSelectorTerm{MatchFields: []corev1.NodeSelectorRequirement{
			{Key: "metadata.name", Operator: operator, Values: values},
		}}
	}
	require := func(terms ...corev1.NodeSelectorTerm) *corev1.NodeAffinity {
		return &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: terms}}
	}
	prefer := func(terms ...corev1.NodeSelectorTerm) *corev1.NodeAffinity {
		affinity := &corev1.NodeAffinity{}
		for _, term := range terms {
			affinity.PreferredDuringSchedulingIgnoredDuringExecution = append(
				affinity.PreferredDuringSchedulingIgnoredDuringExecution,
				corev1.PreferredSchedulingTerm{Weight: 10, Preference: term})
		}
		return affinity
	}
	for _, tt := range []struct {
		name     string
		affinity *corev1.NodeAffinity
		selector map[string]string
		cordoned []string
		want     string
	}{
		{name: "the first by name", want: "a"},
		{name: "not a cordoned one", cordoned: []string{"a"}, want: "b"},
		{name: "none when all are cordoned", cordoned: []string{"a", "b", "c"}, want: ""},
		{name: "the one that its selector names", selector: map[string]string{"zone": "2"}, want: "c"},
		{name: "none when its selector names none", selector: map[string]string{"zone": "3"}, want: ""},
		{name: "one that it requires", affinity: require(hostname(corev1.NodeSelectorOpIn, "b", "c")), want: "b"},
		{name: "one of the terms is enough", affinity: require(name(corev1.NodeSelectorOpIn, "x"), name(corev1.NodeSelectorOpIn, "c")), want: "c"},
		{name: "an empty term matches none", affinity: require(corev1.NodeSelectorTerm{}), want: ""},
		{name: "a label that must not be there", affinity: require(corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{
			{Key: "zone", Operator: corev1.NodeSelectorOpDoesNotExist},
		}}), want: "a"},
		{name: "an unknown operator matches none", affinity: require(hostname("Near", "a")), want: ""},
		{name: "the one that it prefers", affinity: prefer(hostname(corev1.NodeSelectorOpIn, "c")), want: "c"},
		{name: "not the one that it would rather avoid", affinity: prefer(name(corev1.NodeSelectorOpNotIn, "a")), want: "b"},
		{name: "the one it would rather avoid when there is no other", affinity: prefer(name(corev1.NodeSelectorOpNotIn, "a")),
			cordoned: []string{"b", "c"}, want: "a"},
		{name: "the one that more of its preferences name", affinity: prefer(hostname(corev1.NodeSelectorOpIn, "b", "c"),
			hostname(corev1.NodeSelectorOpIn, "c")), want: "c"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			known := newNodes()
			for name, zone := range map[string]string{"a": "", "b": "1", "c": "2"} {
				known.set(name, func(n *node) {
					n.labels = map[string]string{corev1.LabelHostname: name}
					if zone != "" {
						n.labels["zone"] = zone
					}
				})
			}
			for _, name := range tt.cordoned {
				known.set(name, func(n *node) { n.cordoned = true })
			}
			pod := &corev1.Pod{Spec: corev1.PodSpec{NodeSelector: tt.selector}}
			if tt.affinity != nil {
				pod.Spec.Affinity = &corev1.Affinity{NodeAffinity: tt.affinity}
			}
			chosen, again := known.choose(pod)
			assert.Equal(t, tt.want, chosen)
			assert.Equal(t, tt.want == "", again != nil, "a channel says when to ask again")
		})
	}
	t.Run("pods are spread", func(t *testing.T) {
		known := newNodes()
		known.set("a", func(*node) {})
		known.set("b", func(*node) {})
		var chosen []string
		for range 4 {
			name, _ := known.choose(&corev1.Pod{})
			chosen = append(chosen, name)
		}
		assert.Equal(t, []string{"a", "b", "a", "b"}, chosen)
	})
	t.Run("without nodes all pods have one", func(t *testing.T) {
		chosen, _ := newNodes().choose(&corev1.Pod{})
		assert.Equal(t, defaultNode, chosen)
	})
}
