package manifests_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/airflow-requeue/airflow-requeue/internal/executor"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// forgery is a pod that a DAG's author has Airflow make by executor_config, as if Airflow let him have his way with all of it (it
// does not: names, namespace and identity are Airflow's), and what becomes of it.
type forgery struct {
	name  string
	forge func(*testing.T, *target) func(*executor.Task)
	want  string
	// undefended is its fate where the watcher believes it.
	undefended string
}

// forgeries end with the one after which the webhook can't be reached.
func forgeries() []forgery {
	return []forgery{
		{name: "claim to be another team's task",
			forge: func(t *testing.T, x *target) func(*executor.Task) {
				theirs := x.Queue("claimed")
				return func(task *executor.Task) {
					task.Annotations = map[string]string{"dag_id": theirs.DagID, "task_id": theirs.TaskID, "run_id": theirs.RunID}
				}
			},
			want:       "Warning NotQueued Report: Reported to Airflow: the task instance is another one, of the same name and try; NodeAffinity: Pod was rejected: no",
			undefended: "replaced by evil:1, as airflow-worker"},
		{name: "carry another pod's stamps, while the webhook can't be reached",
			forge: func(t *testing.T, x *target) func(*executor.Task) {
				other := x.held(t, "replayed", func(task *executor.Task) { task.Image = "other:1" })
				x.unregister()
				require.NoError(t, until(t.Context(), "the API server to ask no webhook", func() (bool, error) {
					pod, err := x.scheduler.Client.CoreV1().Pods(x.Namespace).Create(t.Context(), workerPod(x.Namespace, "probe"),
						metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
					return err == nil && !requeue.Held(pod), err
				}))
				return func(task *executor.Task) {
					task.Annotations, task.Labels = map[string]string{}, map[string]string{requeue.LabelTracked: x.Namespace, requeue.LabelHold: requeue.HoldValue}
					for _, name := range requeue.StampAnnotations() {
						if value, ok := other.Annotations[name]; ok {
							task.Annotations[name] = value
						}
					}
				}
			},
			want: mismatch, undefended: "replaced by other:1, as airflow-worker"},
	}
}

func (f forgery) fate(t *testing.T, x *target) string {
	t.Helper()
	forge := f.forge(t, x)
	return x.fate(t, x.held(t, "own-"+f.name[:5], forge, func(task *executor.Task) { task.Image = evil }))
}

func TestADAGAuthorGetsNothingOfOthersByExecutorConfig(t *testing.T) {
	x := newTarget(t, true, built)
	create := func(t *testing.T, taskID string, change func(*executor.Task)) (*corev1.Pod, error) {
		task := x.Queue(taskID)
		change(&task)
		return x.scheduler.Create(t.Context(), task)
	}
	t.Run("stamps of his own are taken off, a decompression bomb among them", func(t *testing.T) {
		pod, err := create(t, "stamped", func(task *executor.Task) {
			task.Annotations = map[string]string{}
			for _, name := range requeue.StampAnnotations() {
				task.Annotations[name] = "forged"
			}
			task.Annotations[requeue.AnnotationJobSpec], _ = x.Sealer.Pack(make([]byte, 64<<20))
			task.Labels = map[string]string{requeue.LabelTracked: "forged", requeue.LabelReplaced: x.Namespace, requeue.LabelHold: requeue.HoldValue}
			task.Mutate = func(pod *corev1.Pod) {
				pod.Finalizers = []string{requeue.Finalizer}
				pod.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: requeue.SchedulingGate}}
			}
		})
		require.NoError(t, err)
		assert.Equal(t, requeue.SealValid, x.Sealer.Verify(pod).State)
		assert.Equal(t, []string{requeue.AnnotationAttempt, requeue.AnnotationJobSpec, requeue.AnnotationJobSpecChecksum, requeue.AnnotationOrigin,
			requeue.AnnotationSignature}, slices.Sorted(maps.Keys(stampsOf(pod))))
		assert.Equal(t, "0", pod.Annotations[requeue.AnnotationAttempt])
		assert.Equal(t, x.Namespace, pod.Labels[requeue.LabelTracked])
		assert.NotContains(t, pod.Labels, requeue.LabelReplaced)
		assert.False(t, requeue.Gated(pod))
	})
	t.Run("annotations that leave no room for ours let the pod through unheld", func(t *testing.T) {
		pod, err := create(t, "huge", func(task *executor.Task) {
			task.Annotations = map[string]string{"note": strings.Repeat("x", 250<<10)}
		})
		require.NoError(t, err)
		assert.False(t, requeue.Held(pod) || requeue.Tracked(pod))
	})
	t.Run("the name of another team's pod is taken", func(t *testing.T) {
		theirs := x.held(t, "theirs")
		_, err := create(t, "named", func(task *executor.Task) { task.Name = theirs.Name })
		assert.True(t, apierrors.IsAlreadyExists(err), "%v", err)
	})
	t.Run("another namespace is not where Airflow asks for the pod", func(t *testing.T) {
		_, err := create(t, "elsewhere", func(task *executor.Task) {
			task.Mutate = func(pod *corev1.Pod) { pod.Namespace = metav1.NamespaceSystem }
		})
		assert.ErrorContains(t, err, "the namespace of the provided object does not match the namespace sent on the request")
	})
	for _, f := range forgeries() {
		t.Run(f.name, func(t *testing.T) { assert.Equal(t, f.want, f.fate(t, x)) })
	}
}

// TestOnlyPodsOfTheConfiguredUsersAndGroupsAreHeld has schedulers outside the cluster, beside the one of the manifests.
func TestOnlyPodsOfTheConfiguredUsersAndGroupsAreHeld(t *testing.T) {
	x := newTarget(t, true, built)
	held := func(user string, groups ...string) bool {
		cfg, err := servers.User(user, append(groups, "system:masters")...)
		require.NoError(t, err)
		pod, err := clientOf(t, cfg).CoreV1().Pods(x.Namespace).Create(t.Context(), workerPod(x.Namespace, "asked"),
			metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		require.NoError(t, err)
		return requeue.Held(pod)
	}
	assert.True(t, held(x.airflow()), "the manifests' service account")
	assert.True(t, held("anna@example.com"), "a user")
	assert.True(t, held("bert@example.com", "schedulers"), "one of a group")
	assert.False(t, held("bert@example.com"))
	assert.False(t, held("system:serviceaccount:default:"+scheduler))
}
