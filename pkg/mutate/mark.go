package mutate

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// Marker marks the pods of one installation.
type Marker struct {
	Installation  string
	Namespaces    []string // that Airflow puts worker pods in
	WatcherUser   string   // whose replacements are believed, if their seal is good
	AirflowUsers  []string // whose pods are held; a service account is system:serviceaccount:<namespace>:<name>
	AirflowGroups []string
	Policy        requeue.Policy // over which the pod's own tuning goes
	Observe       bool           // pods are stamped to be looked at, and none is held
	AnyAirflow    bool           // pods of an Airflow before requeue.OldestAirflow are held as well
	Sealer        *requeue.Sealer
}

// Request is what the admission of a pod that is to be created says beside the pod.
type Request struct {
	Namespace   string // the object may not name one
	User        string
	Groups      []string
	LeaderReady bool // a watcher leads for the namespace and can decide
}

// Result is what Mark did.
type Result struct {
	Outcome  Outcome
	Warnings []string        // for who submitted the pod
	Airflow  requeue.Airflow // with UnsupportedAirflow
	Err      error           // with NotTaskInstance and Internal: what is missing, and quotes nothing of the pod
}

// Mark stamps a pod that is to be held, and takes stamps off every other pod that it is asked about. To mark its own
// output again changes nothing.
func (m Marker) Mark(pod *unstructured.Unstructured, req Request) Result {
	switch {
	case field(pod, "metadata", "labels", requeue.LabelKubernetesExecutor) != "True":
		return Result{Outcome: NotExecutorPod}
	case !slices.Contains(m.Namespaces, req.Namespace):
		requeue.Unstamp(pod)
		return Result{Outcome: OtherNamespace}
	case req.User == m.WatcherUser && m.sealed(pod, req.Namespace):
		return Result{Outcome: FromWatcher}
	}
	requeue.Unstamp(pod) // stamps are never believed
	if !slices.Contains(m.AirflowUsers, req.User) && !slices.ContainsFunc(req.Groups, m.airflowGroup) {
		return Result{Outcome: OtherUser}
	}
	requeue.RemoveGate(pod)
	policy, warnings := m.Policy.With(pod.GetAnnotations())
	if m.Observe {
		warnings = nil // nobody's annotations count yet
	}
	outcome := unfit(pod, policy)
	airflow, known := airflowOf(pod)
	var err error
	switch {
	case outcome != "":
	case known && airflow.Before(requeue.OldestAirflow()) && !m.AnyAirflow:
		return Result{Outcome: UnsupportedAirflow, Warnings: warnings, Airflow: airflow}
	case !req.LeaderReady:
		outcome = NoLeader
	default:
		outcome, err = m.hold(pod, req.Namespace)
	}
	return Result{Outcome: outcome, Warnings: warnings, Err: err}
}

func (m Marker) airflowGroup(group string) bool { return slices.Contains(m.AirflowGroups, group) }

// sealed reports whether the stamps are ours. With a key that is not mounted here yet the watcher verifies again.
func (m Marker) sealed(pod *unstructured.Unstructured, namespace string) bool {
	account, _ := field(pod, "spec", "serviceAccountName").(string)
	typed := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: pod.GetName(), Namespace: namespace, Annotations: pod.GetAnnotations()},
		Spec:       corev1.PodSpec{ServiceAccountName: account},
	}
	return m.Sealer.Verify(typed).State != requeue.SealBad
}

// unfit says why a pod that Airflow submits is not to be held, if so.
func unfit(pod *unstructured.Unstructured, policy requeue.Policy) Outcome {
	has := func(path ...string) bool { return field(pod, path...) != nil }
	switch {
	case malformed(pod):
		return Malformed
	case has("metadata", "annotations", requeue.AnnotationCallbackID):
		return Callback
	case has("metadata", "labels", requeue.LabelHold):
		return Revoked
	case pod.GetName() == "":
		return NoName
	case has("spec", "nodeName") && field(pod, "spec", "nodeName") != "":
		return NodeName
	case has("metadata", "labels", requeue.LabelKueueQueue):
		return Kueue
	case policy.MaxRetries == 0:
		return RetriesOff
	}
	return ""
}

// airflowOf is the release of the Airflow that made the pod. Where that can't be told the pod is held all the same: a label that
// nobody can read would switch a whole cluster off, and the watcher leads on no database of an Airflow before 2.10.
func airflowOf(pod *unstructured.Unstructured) (airflow requeue.Airflow, known bool) {
	label, _ := field(pod, "metadata", "labels", requeue.LabelAirflowVersion).(string)
	return requeue.ParseAirflow(label)
}

func malformed(pod *unstructured.Unstructured) bool {
	_, _, labels := unstructured.NestedStringMap(pod.Object, "metadata", "labels")
	_, _, annotations := unstructured.NestedStringMap(pod.Object, "metadata", "annotations")
	_, _, finalizers := unstructured.NestedStringSlice(pod.Object, "metadata", "finalizers")
	return labels != nil || annotations != nil || finalizers != nil
}

// field returns what is at the path; nil where there is nothing, or no path.
func field(pod *unstructured.Unstructured, path ...string) any {
	v, _, err := unstructured.NestedFieldNoCopy(pod.Object, path...)
	if err != nil {
		return nil
	}
	return v
}
