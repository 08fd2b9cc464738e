package kubelet

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
)

// defaultNode takes the pods as long as no node was added.
const defaultNode = "node"

// node is what the scheduler knows of a node.
type node struct {
	labels   map[string]string
	cordoned bool
	pods     int // bound so far
}

// nodes is the scheduler's view, safe for many goroutines.
type nodes struct {
	mu      sync.Mutex
	byName  map[string]*node
	changed chan struct{} // closed, and replaced, when a node was added or uncordoned
}

func newNodes() *nodes {
	return &nodes{byName: map[string]*node{}, changed: make(chan struct{})}
}

// AddNode registers a Node that is Ready; one that exists is taken as it is. Its labels are those given, and
// kubernetes.io/hostname.
func (k *Kubelet) AddNode(ctx context.Context, name string, labels map[string]string) error {
	labels = maps.Clone(labels)
	if labels == nil {
		labels = map[string]string{}
	}
	labels[corev1.LabelHostname] = name
	created, err := k.client.CoreV1().Nodes().Create(ctx,
		&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}, metav1.CreateOptions{})
	switch {
	case apierrors.IsAlreadyExists(err):
	case err != nil:
		return fmt.Errorf("registering node %s: %w", name, err)
	default:
		now := k.now()
		capacity := corev1.ResourceList{
			corev1.ResourceCPU:    resource.MustParse("64"),
			corev1.ResourceMemory: resource.MustParse("256Gi"),
			corev1.ResourcePods:   resource.MustParse("10000"),
		}
		created.Status = corev1.NodeStatus{
			Capacity:    capacity,
			Allocatable: capacity,
			Conditions: []corev1.NodeCondition{{
				Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "KubeletReady",
				LastHeartbeatTime: now, LastTransitionTime: now,
			}},
		}
		if _, err := k.client.CoreV1().Nodes().UpdateStatus(ctx, created, metav1.UpdateOptions{}); err != nil {
			return fmt.Errorf("writing the status of node %s: %w", name, err)
		}
	}
	k.nodes.set(name, func(n *node) { n.labels = labels })
	return nil
}

// Cordon marks a node unschedulable: it gets no pods any more. Uncordon takes that back.
func (k *Kubelet) Cordon(ctx context.Context, name string) error { return k.cordon(ctx, name, true) }

// Uncordon lets a node have pods again.
func (k *Kubelet) Uncordon(ctx context.Context, name string) error { return k.cordon(ctx, name, false) }

func (k *Kubelet) cordon(ctx context.Context, name string, cordoned bool) error {
	patch := fmt.Sprintf(`{"spec":{"unschedulable":%t}}`, cordoned)
	_, err := k.client.CoreV1().Nodes().Patch(ctx, name, types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{})
	if err != nil {
		return fmt.Errorf("cordoning node %s (%t): %w", name, cordoned, err)
	}
	k.nodes.set(name, func(n *node) { n.cordoned = cordoned })
	return nil
}

// Drain cordons a node and evicts every pod on it that has not ended, as kubectl drain does, but waits for none of
// them. It goes on after an eviction that fails, and returns all errors.
func (k *Kubelet) Drain(ctx context.Context, name string) error {
	if err := k.Cordon(ctx, name); err != nil {
		return err
	}
	list, err := k.client.CoreV1().Pods(k.options.Namespace).List(ctx, metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector("spec.nodeName", name).String(),
	})
	if err != nil {
		return fmt.Errorf("listing the pods of node %s: %w", name, err)
	}
	var failed []error
	for i := range list.Items {
		pod := &list.Items[i]
		if isEnded(pod) || pod.DeletionTimestamp != nil {
			continue
		}
		if err := k.Evict(ctx, pod); err != nil && !apierrors.IsNotFound(err) {
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}

// RemoveNode deletes a Node: its machine is gone. Its pods stay as they are until NodeLost.
func (k *Kubelet) RemoveNode(ctx context.Context, name string) error {
	if err := k.client.CoreV1().Nodes().Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
		return fmt.Errorf("removing node %s: %w", name, err)
	}
	k.nodes.mu.Lock()
	defer k.nodes.mu.Unlock()
	delete(k.nodes.byName, name)
	return nil
}

func (n *nodes) set(name string, change func(*node)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.byName[name] == nil {
		n.byName[name] = &node{}
	}
	change(n.byName[name])
	close(n.changed)
	n.changed = make(chan struct{})
}

// choose is the node for a pod: of those that it fits, the one it prefers most, of these the one that had the fewest
// pods, of these the first by name. When it fits none, the channel says when to ask again.
func (n *nodes) choose(pod *corev1.Pod) (string, <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.byName) == 0 {
		return defaultNode, nil
	}
	chosen := ""
	var best int32
	for _, name := range slices.Sorted(maps.Keys(n.byName)) {
		candidate := n.byName[name]
		if candidate.cordoned || !fits(pod, name, candidate.labels) {
			continue
		}
		preference := preference(pod, name, candidate.labels)
		if chosen == "" || preference > best || preference == best && candidate.pods < n.byName[chosen].pods {
			chosen, best = name, preference
		}
	}
	if chosen == "" {
		return "", n.changed
	}
	n.byName[chosen].pods++
	return chosen, nil
}

func (n *nodes) size() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.byName)
}
