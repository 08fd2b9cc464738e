package manifests_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/airflow-requeue/airflow-requeue/internal/executor"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// refusedByPolicy is how the policy says no.
const refusedByPolicy = "for its own accounts to"

// enforced applies an installation's policy, and waits until the API server knows it.
func enforced(t *testing.T, namespace string, all objects) {
	t.Helper()
	applyAll(t, all.of("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"))
	nobody := clientOf(t, account(t, namespace, "nobody", schedulerRights))
	forged := workerPod(namespace, "forged")
	forged.Labels[requeue.LabelReplaced] = namespace
	err := until(t.Context(), "the policy", func() (bool, error) {
		_, err := nobody.CoreV1().Pods(namespace).Create(t.Context(), forged, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return err != nil && strings.Contains(err.Error(), refusedByPolicy), nil
	})
	require.NoError(t, err)
}

// workerPod is a pod as Airflow submits it.
func workerPod(namespace, name string) *corev1.Pod {
	task := executor.NewTask("dag", name, "manual__1", time.Now())
	task.Name, task.Namespace = name, namespace
	return executor.Pod(task)
}

// stampedPod has everything of ours on it.
func stampedPod(namespace, name string) *corev1.Pod {
	pod := workerPod(namespace, name)
	for _, annotation := range requeue.StampAnnotations() {
		pod.Annotations[annotation] = "x"
	}
	maps.Copy(pod.Labels, map[string]string{requeue.LabelHold: requeue.HoldValue, requeue.LabelTracked: "x", requeue.LabelReplaced: "x"})
	pod.Finalizers = []string{"example.com/another", requeue.Finalizer}
	pod.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: requeue.SchedulingGate}, {Name: "example.com/another"}}
	return pod
}

// guarded is a namespace with a policy.
func guarded(t *testing.T, name string) {
	t.Helper()
	namespace(t, name, nil)
	all := moved(t, name, name)
	granted(t, name, all.rights())
	enforced(t, name, all)
}

// change is a patch of a pod.
type change struct {
	name  string
	kind  types.PatchType
	patch string
}

func annotated(key string, value any) change {
	raw, _ := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]any{key: value}}})
	return change{fmt.Sprintf("annotation %s: %v", key, value), types.MergePatchType, string(raw)}
}

func labelled(key string, value any) change {
	raw, _ := json.Marshal(map[string]any{"metadata": map[string]any{"labels": map[string]any{key: value}}})
	return change{fmt.Sprintf("label %s: %v", key, value), types.MergePatchType, string(raw)}
}

// ours are changes of what is ours: first of a pod that has it all, then of one that has nothing of it.
func ours() (stamped, plain []change) {
	for _, annotation := range requeue.StampAnnotations() {
		stamped = append(stamped, annotated(annotation, "y"), annotated(annotation, nil))
		plain = append(plain, annotated(annotation, "y"))
	}
	for _, label := range []string{requeue.LabelTracked, requeue.LabelReplaced} {
		stamped = append(stamped, labelled(label, "y"), labelled(label, nil))
		plain = append(plain, labelled(label, "y"))
	}
	stamped = append(stamped, labelled(requeue.LabelHold, nil),
		change{"no finalizer", types.MergePatchType, `{"metadata":{"finalizers":null}}`},
		change{"another's finalizer alone", types.MergePatchType, `{"metadata":{"finalizers":["example.com/another"]}}`},
		change{"no gate", types.JSONPatchType, `[{"op":"remove","path":"/spec/schedulingGates"}]`},
		change{"another's gate alone", types.JSONPatchType, `[{"op":"remove","path":"/spec/schedulingGates/0"}]`})
	plain = append(plain, labelled(requeue.LabelHold, requeue.HoldValue),
		change{"finalizer", types.MergePatchType, `{"metadata":{"finalizers":["` + requeue.Finalizer + `"]}}`})
	return stamped, plain
}

// others are changes that Airflow, kubelets and users make.
func others() []change {
	return []change{
		labelled(requeue.LabelHold, "True"), // revoked by Airflow
		labelled(requeue.LabelWorker, "2"),  // adopted
		labelled(requeue.LabelWorker, nil),
		labelled(requeue.LabelExecutorDone, "True"),
		labelled("team", "blue"),
		annotated("task_instance_id", "0197"),
		annotated(requeue.AnnotationMaxRetries, "3"),
		annotated(requeue.AnnotationBackoff, "1s"),
		{"another's finalizer", types.JSONPatchType, `[{"op":"remove","path":"/metadata/finalizers/0"}]`},
		{"another's gate", types.JSONPatchType, `[{"op":"remove","path":"/spec/schedulingGates/1"}]`},
	}
}

func (c change) apply(t *testing.T, client kubernetes.Interface, pod *corev1.Pod, subresources ...string) error {
	t.Helper()
	_, err := client.CoreV1().Pods(pod.Namespace).Patch(t.Context(), pod.Name, c.kind, []byte(c.patch), metav1.PatchOptions{DryRun: []string{metav1.DryRunAll}}, subresources...)
	return err
}

func TestThePolicyLetsOnlyOurAccountsChangeWhatIsOurs(t *testing.T) {
	const ns = "guarded"
	guarded(t, ns)
	pods := map[string]*corev1.Pod{"stamped": stampedPod(ns, "stamped"), "plain": workerPod(ns, "plain")}
	for name, pod := range pods {
		var err error
		pods[name], err = admin(t).CoreV1().Pods(ns).Create(t.Context(), pod, metav1.CreateOptions{})
		require.NoError(t, err)
	}
	accounts := map[string]kubernetes.Interface{
		"Airflow's scheduler": clientOf(t, account(t, ns, scheduler, append(schedulerRights, attackerRights...))),
		"somebody":            clientOf(t, account(t, ns, attacker, attackerRights)),
		"an administrator":    admin(t),
		"one who may clean up, as our README says":                        member(t, ns, "airflow-admins", rbacv1.RoleRef{Kind: "Role", Name: "airflow-requeue-webhook"}),
		"an administrator of the namespace, by ClusterRole cluster-admin": member(t, ns, "owners", rbacv1.RoleRef{Kind: "ClusterRole", Name: "cluster-admin"}),
	}
	for _, name := range []string{"watcher", "webhook"} {
		cfg, err := servers.User("system:serviceaccount:" + ns + ":airflow-requeue-" + name)
		require.NoError(t, err)
		accounts["our "+name] = clientOf(t, cfg)
	}
	stamped, plain := ours()
	for who, client := range accounts {
		may := who != "Airflow's scheduler" && who != "somebody"
		t.Run(who, func(t *testing.T) {
			for _, subresource := range []string{"", "status"} {
				for name, changes := range map[string][]change{"stamped": stamped, "plain": plain} {
					for _, c := range changes {
						if subresource == "status" && strings.Contains(c.patch, "schedulingGates") {
							continue // the API server takes none of the spec from there
						}
						err := c.apply(t, client, pods[name], nonEmpty(subresource)...)
						if may {
							assert.NoError(t, err, "%s %s: %s", name, subresource, c.name)
						} else {
							assert.True(t, apierrors.IsForbidden(err), "%s %s: %s: %v", name, subresource, c.name, err)
							assert.ErrorContains(t, err, refusedByPolicy, "%s %s: %s", name, subresource, c.name)
						}
					}
				}
			}
			for _, c := range others() {
				assert.NoError(t, c.apply(t, client, pods["stamped"]), c.name)
			}
		})
	}
}

// member is one of a group that has a role in the namespace.
func member(t *testing.T, namespace, group string, role rbacv1.RoleRef) kubernetes.Interface {
	t.Helper()
	role.APIGroup = rbacv1.GroupName
	_, err := admin(t).RbacV1().RoleBindings(namespace).Create(t.Context(), &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Name: group},
		RoleRef: role, Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.GroupKind, Name: group}}}, metav1.CreateOptions{})
	require.NoError(t, err)
	cfg, err := servers.User("one-of-"+group, group)
	require.NoError(t, err)
	client := clientOf(t, cfg)
	require.NoError(t, until(t.Context(), "the rights of "+group, func() (bool, error) {
		_, err := client.CoreV1().Pods(namespace).List(t.Context(), metav1.ListOptions{})
		return err == nil, nil // RBAC answers from a cache
	}))
	return client
}

func nonEmpty(s ...string) []string {
	return slices.DeleteFunc(s, func(s string) bool { return s == "" })
}

func TestThePolicyLetsNobodyElseCreateWhatTheWebhookDoesNotMake(t *testing.T) {
	const ns = "guarded-creation"
	guarded(t, ns)
	somebody := clientOf(t, account(t, ns, attacker, attackerRights))
	first := func(pod *corev1.Pod) {
		for _, annotation := range []string{requeue.AnnotationAttempt, requeue.AnnotationOrigin, requeue.AnnotationJobSpec,
			requeue.AnnotationJobSpecChecksum, requeue.AnnotationSignature} {
			pod.Annotations[annotation] = "x"
		}
		pod.Labels[requeue.LabelTracked] = "x"
	}
	label := func(key, value string) func(*corev1.Pod) { return func(pod *corev1.Pod) { pod.Labels[key] = value } }
	annotation := func(key string) func(*corev1.Pod) { return func(pod *corev1.Pod) { pod.Annotations[key] = "x" } }
	hold, finalizer := label(requeue.LabelHold, requeue.HoldValue), func(pod *corev1.Pod) { pod.Finalizers = []string{requeue.Finalizer} }
	gate := func(pod *corev1.Pod) {
		pod.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: requeue.SchedulingGate}}
	}
	foreign := func(pod *corev1.Pod) { pod.Labels = nil }
	for _, test := range []struct {
		name    string
		refused bool
		with    []func(*corev1.Pod)
	}{
		{"a worker pod", false, nil},
		{"a worker pod with tuning", false, []func(*corev1.Pod){annotation(requeue.AnnotationMaxRetries), annotation(requeue.AnnotationBackoff)}},
		{"a worker pod that Airflow revoked before", false, []func(*corev1.Pod){label(requeue.LabelHold, "True")}},
		{"a held pod as the webhook makes it", false, []func(*corev1.Pod){first, hold, finalizer}},
		{"an observed pod as the webhook makes it", false, []func(*corev1.Pod){first, annotation(requeue.AnnotationMode)}},
		{"a pod of others", false, []func(*corev1.Pod){foreign}},
		{"a pod without annotations", false, []func(*corev1.Pod){func(pod *corev1.Pod) { pod.Annotations = nil }}},
		{"a pod with as many annotations as there may be", false, []func(*corev1.Pod){func(pod *corev1.Pod) {
			for i := range 40_000 {
				pod.Annotations[fmt.Sprintf("a%05d", i)] = ""
			}
		}}},
		{"the tracked label alone", true, []func(*corev1.Pod){label(requeue.LabelTracked, ns)}},
		{"the label of replaced pods alone", true, []func(*corev1.Pod){label(requeue.LabelReplaced, ns)}},
		{"the hold alone", true, []func(*corev1.Pod){hold}},
		{"the finalizer alone", true, []func(*corev1.Pod){finalizer}},
		{"the gate alone", true, []func(*corev1.Pod){gate}},
		{"a replaced pod", true, []func(*corev1.Pod){first, hold, label(requeue.LabelReplaced, ns)}},
		{"a held pod with a gate", true, []func(*corev1.Pod){first, hold, finalizer, gate}},
		{"a held pod that the webhook is not asked about", true, []func(*corev1.Pod){first, hold, finalizer, func(pod *corev1.Pod) {
			delete(pod.Labels, requeue.LabelKubernetesExecutor)
		}}},
		{"a held pod without a signature", true, []func(*corev1.Pod){first, hold, finalizer, func(pod *corev1.Pod) {
			delete(pod.Annotations, requeue.AnnotationSignature)
		}}},
		{"a replacement", true, []func(*corev1.Pod){first, hold, finalizer, annotation(requeue.AnnotationRequeueOf)}},
		{"a detached pod", true, []func(*corev1.Pod){first, hold, finalizer, annotation(requeue.AnnotationDetached)}},
		{"a discarded pod", true, []func(*corev1.Pod){first, hold, finalizer, annotation(requeue.AnnotationDiscarded)}},
	} {
		t.Run(test.name, func(t *testing.T) {
			pod := workerPod(ns, "created")
			for _, with := range test.with {
				with(pod)
			}
			_, err := somebody.CoreV1().Pods(ns).Create(t.Context(), pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
			if test.refused {
				assert.ErrorContains(t, err, refusedByPolicy)
			} else {
				assert.NoError(t, err)
			}
		})
	}
}

func TestThePolicyLetsNobodyElseStampAPodAsItIsBound(t *testing.T) {
	const ns = "guarded-binding"
	guarded(t, ns)
	pod, err := admin(t).CoreV1().Pods(ns).Create(t.Context(), workerPod(ns, "bound"), metav1.CreateOptions{})
	require.NoError(t, err)
	bind := func(client kubernetes.Interface, annotations map[string]string) error {
		return client.CoreV1().Pods(ns).Bind(t.Context(), &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: pod.Name, Annotations: annotations},
			Target: corev1.ObjectReference{Kind: "Node", Name: "node-a"}}, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	}
	somebody, stamps := clientOf(t, account(t, ns, attacker, attackerRights)), map[string]string{requeue.AnnotationDiscarded: "true"}
	assert.ErrorContains(t, bind(somebody, stamps), refusedByPolicy)
	assert.NoError(t, bind(somebody, map[string]string{"another": "true"}))
	assert.NoError(t, bind(somebody, nil))
	assert.NoError(t, bind(admin(t), stamps), "this is how it would get on the pod")
}
