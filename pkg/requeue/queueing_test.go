package requeue

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
)

func TestHostnameOf(t *testing.T) {
	long := strings.Repeat("a", 62) + "-b-r1"
	ips := onPod(func(p *corev1.Pod) {
		p.Status.PodIP, p.Status.PodIPs = podIP, []corev1.PodIP{{IP: podIP}, {IP: "fd00::1"}}
	})
	named := func(name string) change { return onPod(func(p *corev1.Pod) { p.Name = name }) }
	for _, c := range []struct {
		name     string
		pod      change
		hostname string
		want     bool
	}{
		{"the pod's name", all(), podName, true},
		{"the pod's name with the cluster's domain", all(), podName + ".airflow.svc.cluster.local", true},
		{"the address", ips, podIP, true},
		{"the second address", ips, "fd00::1", true},
		{"no hostname is nobody's", all(), "", false},
		{"no hostname is nobody's, though the pod has no address", onPod(func(p *corev1.Pod) { p.Status.PodIPs = []corev1.PodIP{{}} }), "", false},
		{"another pod's name", all(), "etl-load-other", false},
		{"a name that begins like the pod's", all(), podName + "-r1", false},
		{"the beginning of the pod's name", all(), podName[:8], false},
		{"another address", ips, "10.1.2.4", false},
		{"the node's name", onNode(), node, false},
		{"a hostname of the pod's own", onPod(func(p *corev1.Pod) { p.Spec.Hostname = "worker" }), "worker.airflow.svc", true},
		{"the name of a pod that has a hostname of its own", onPod(func(p *corev1.Pod) { p.Spec.Hostname = "worker" }), podName, false},
		{"a name beyond 63 characters, cut as the kubelet does", named(long), strings.Repeat("a", 62), true},
		{"a name beyond 63 characters, uncut", named(long), long, false},
		{"a name with dots", named("etl.load-1"), "etl.load-1", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.Equal(t, c.want, hostnameOf(given(c.pod).Pod, c.hostname))
		})
	}
}

func TestSeenQueuedIsRememberedOnceAndOnlyBeforeThePodRan(t *testing.T) {
	fresh := seenQueued(time.Time{})
	for _, c := range []struct {
		name  string
		given scene
		want  time.Time
	}{
		{"a Pending pod's own queueing is remembered", given(fresh, queued), queuedAt()},
		{"what was seen before stays, whatever the row says now", given(seenQueued(ago(time.Hour)), queued), ago(time.Hour)},
		{"a later queueing is not remembered", given(fresh, row(queuedOn(noon()))), time.Time{}},
		{"a row of another state is not remembered", given(fresh, row(state(StateRunning))), time.Time{}},
		{"a row that was not read is not remembered", given(fresh), time.Time{}},
		{"a Running pod's row may be a later queueing's", given(fresh, running, queued), time.Time{}},
		{"a failed pod's row may be a later queueing's", given(fresh, failed, queued), time.Time{}},
		{"a deleted pod's row may be a later queueing's", given(fresh, onNode(), deleted(ago(-time.Minute)), queued), time.Time{}},
		{"within the operator's clock skew, Airflow 2's row is this queueing", given(fresh, airflow2, row(queuedOn(createdAt().Add(10*time.Second)))),
			createdAt().Add(10 * time.Second)},
		{"beyond it, it is not", given(fresh, airflow2, row(queuedOn(createdAt().Add(11*time.Second)))), time.Time{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.Equal(t, c.want, SeenQueued(c.given.Input, c.given.policy))
		})
	}
}

func TestSameTaskInstance(t *testing.T) {
	key := Key{DagID: "etl", TaskID: "load", RunID: "manual__1", MapIndex: -1}
	named := all(annotation("dag_id", "etl"), annotation("task_id", "load"), annotation("run_id", "manual__1"))
	mapped := key
	mapped.MapIndex = 3
	for _, c := range []struct {
		name string
		pod  change
		key  Key
		want bool
	}{
		{"the same raw values", named, key, true},
		{"another dag", all(named, annotation("dag_id", "ETL")), key, false},
		{"another task", all(named, annotation("task_id", "lo")), key, false},
		{"another run", all(named, annotation("run_id", "manual__2")), key, false},
		{"the same map index", all(named, annotation("map_index", "3")), mapped, true},
		{"another map index", all(named, annotation("map_index", "2")), mapped, false},
		{"a mapped task is not the unmapped one", all(named, annotation("map_index", "3")), key, false},
		{"an unmapped task is not the mapped one", named, mapped, false},
		{"map index -1 is unmapped", all(named, annotation("map_index", "-1")), key, true},
		{"a map index that is no number is nobody's", all(named, annotation("map_index", "x")), key, false},
		{"no annotations at all", unstamped, key, false},
	} {
		t.Run(c.name, func(t *testing.T) { require.Equal(t, c.want, SameTaskInstance(given(c.pod).Pod, c.key)) })
	}
}

func TestMessagesAreCutWhereAnEventWouldBeToo(t *testing.T) {
	long := strings.Repeat("é", 1000)
	d := given(failed, queued, statusReason("Evicted", long)).decide()
	require.Equal(t, ReasonNodePressure, d.Reason)
	require.LessOrEqual(t, len(d.Message), maxMessage+len("…"))
	whole := strings.Repeat("x", maxMessage)
	require.Equal(t, whole, given(failed, queued, statusReason(whole, "")).decide().Message)
	require.True(t, strings.HasPrefix(d.Message, "Evicted: éé") && strings.HasSuffix(d.Message, "é…"), "cut between characters")
}

func TestEveryActionHasAName(t *testing.T) {
	seen := map[string]bool{}
	for a := Wait; a <= Strip; a++ {
		require.NotEqual(t, "unknown", a.String())
		seen[a.String()] = true
	}
	require.Len(t, seen, int(Strip)+1)
	require.Equal(t, "unknown", (Strip + 1).String())
	require.Equal(t, "wait", Decision{}.Action.String(), "the zero value is the harmless one")
}

func TestAKeyIsWrittenAsAirflowDoes(t *testing.T) {
	require.Equal(t, "etl.load manual__1", Key{"etl", "load", "manual__1", -1}.String())
	require.Equal(t, "etl.load[0] manual__1", Key{"etl", "load", "manual__1", 0}.String())
}
