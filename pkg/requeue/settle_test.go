package requeue

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// world is a scene that decisions are done to, one guarded write at a time, while nobody else writes.
type world struct {
	scene
	row    Lookup // as the metadata database has it
	writes []Action
	// view is the row and airflow-worker as seen last.
	view      string
	viewSince time.Time
	gone      bool
}

func worldOf(s scene) *world {
	w := &world{scene: s.with(), row: s.Row}
	if w.row.State == Unread {
		queued(&w.scene)
		w.row = w.Row
	}
	pods := s.Siblings.Pods
	w.Siblings.Pods = nil
	for _, p := range pods {
		w.Siblings.Pods = append(w.Siblings.Pods, p.DeepCopy())
	}
	w.forget()
	return w
}

// forget makes the next decision ask for what it needs.
func (w *world) forget() {
	w.Row, w.Siblings.Live = Lookup{}, false
}

// step decides once and does it. It reports false when nothing more is to come without an event.
func (w *world) step(t *testing.T) bool {
	t.Helper()
	d := w.decide()
	switch d.Action {
	case Wait:
		w.now = w.now.Add(max(d.After, 10*time.Second)) // nothing is ever due to the second
		w.forget()
		return d.After > 0
	case Ignore:
		return false
	case Read:
		if d.Need == NeedRow {
			if view := fmt.Sprint(w.row.Task, Worker(w.Pod)); view != w.view {
				w.view, w.viewSince = view, w.now
			}
			if w.Row = w.row; w.Row.State == Found {
				w.Row.Since = w.viewSince
			}
		} else {
			w.Siblings.Live = true
		}
		return true
	}
	before, siblings := w.Pod.DeepCopy(), copies(w.Siblings.Pods)
	w.write(d)
	w.writes = append(w.writes, d.Action)
	require.False(t, !w.gone && reflect.DeepEqual(before, w.Pod) && reflect.DeepEqual(siblings, copies(w.Siblings.Pods)),
		"%s of row %s changes nothing, and would come again for ever\n%s", d.Action, d.Row, full{w.scene})
	w.forget()
	return Tracked(w.Pod)
}

func copies(pods []*corev1.Pod) []corev1.Pod {
	var all []corev1.Pod
	for _, p := range pods {
		all = append(all, *p.DeepCopy())
	}
	return all
}

// write does to the objects what the watcher's request would.
func (w *world) write(d Decision) {
	pod := w.Pod
	for k, v := range d.Annotations {
		if pod.Annotations[k] = v; v == "" {
			delete(pod.Annotations, k)
		}
	}
	switch d.Action {
	case Delete:
		grace := time.Duration(0)
		if pod.Spec.NodeName != "" { // its kubelet ends it
			grace = 30 * time.Second
			pod.Status = corev1.PodStatus{Phase: corev1.PodFailed}
			exited("ContainerStatusUnknown", 137)(&w.scene)
		}
		deleted(w.now.Add(grace))(&w.scene)
	case Ungate:
		pod.Spec.SchedulingGates = nil
		w.attach(d.Worker)
	case MarkFailed:
		pod.Status.Phase, pod.Status.Reason, pod.Status.Message = corev1.PodFailed, string(d.Reason), d.Message
	case Detach, Discard:
		delete(pod.Labels, LabelWorker)
		pod.Labels[LabelExecutorDone] = "True"
		if d.Action == Discard {
			pod.Annotations[AnnotationDiscarded] = "true"
		}
	case Attach:
		w.attach(d.Worker)
	case Create:
		w.Siblings.Pods = append(w.Siblings.Pods, sibling(pod.Name+"-r", "uid-new", asReplacement, gateOn, uncommitted,
			attempt(d.Next.Attempt), annotation(AnnotationRequeueOf, string(pod.UID)), onPod(func(p *corev1.Pod) {
				p.Name, p.UID = pod.Name+"-r"+strconv.Itoa(d.Next.Attempt), types.UID("uid-new")
			})))
	case Commit:
		d.Replacement.Annotations[AnnotationCommitted] = "true"
		d.Replacement.Labels[LabelWorker] = d.Worker
	case Release, Report:
		delete(pod.Labels, LabelHold)
		w.attach(d.Worker)
		if d.Linger {
			pod.Annotations[AnnotationReleasedAt] = FormatTime(w.now)
		} else {
			w.letGo()
		}
	case Strip:
		w.letGo()
	}
}

func (w *world) attach(worker string) {
	if worker != "" {
		w.Pod.Labels[LabelWorker] = worker
	}
	if Detached(w.Pod) {
		delete(w.Pod.Labels, LabelExecutorDone)
		delete(w.Pod.Annotations, AnnotationDetached)
	}
}

func (w *world) letGo() {
	delete(w.Pod.Labels, LabelTracked)
	w.Pod.Finalizers = nil
}

// settle goes on until nothing is left to do, or until an hour has passed.
func (w *world) settle(t *testing.T) {
	t.Helper()
	for end := w.now.Add(time.Hour); w.now.Before(end); {
		if !w.step(t) {
			return
		}
		if last := w.decide(); last.Row == "15" { // looks again each second, for ever
			return
		}
		require.Less(t, len(w.writes), 12, "%v: does not come to an end\n%s", w.writes, full{w.scene})
	}
}

// No chain of decisions writes for ever, and every pod that has ended is let go, whatever state it was found in: with
// what a crash between any two writes leaves behind, and with stamps that somebody tampered with.
func TestEveryPodIsLetGoOnceItHasEnded(t *testing.T) {
	t.Parallel()
	ended := 0
	for _, s := range scenes(5, 5_000) {
		if !Tracked(s.Pod) {
			continue
		}
		w := worldOf(s)
		w.settle(t)
		if w.decide().Row == "2" { // that its predecessor is settled is another pod's scene
			continue
		}
		if Ended(w.Pod) {
			ended++
			ignored := w.decide().Action == Ignore // a pod that was never held keeps whatever label it has
			require.False(t, hasFinalizer(w.Pod) || Tracked(w.Pod) && !ignored, "%v: stays\n%+v\n%s", w.writes, w.decide(), full{w.scene})
		}
	}
	require.Greater(t, ended, 2_000, "the generator has become narrow")
}

// Every pod that ended comes out in one of the ways there are: Airflow sees its end; or else it has a replacement that
// took its place, or another pod's end counts.
func TestEveryEndIsSeenOnceByAirflow(t *testing.T) {
	t.Parallel()
	for _, s := range scenes(6, 10_000) {
		if !Tracked(s.Pod) || !Held(s.Pod) || !Ended(s.Pod) || s.NamespaceTerminating || Discarded(s.Pod) {
			continue
		}
		w := worldOf(s)
		w.settle(t)
		last := w.decide()
		if last.Row == "1" || last.Row == "2" {
			continue
		}
		seen := !Held(w.Pod)
		replaced := slices.ContainsFunc(replacements(w.scene), Committed)
		require.True(t, seen || replaced || Discarded(w.Pod), "%v: lost\n%s", w.writes, full{w.scene})
		if seen {
			require.False(t, replaced || Discarded(w.Pod), "%v: Airflow sees two\n%s", w.writes, full{w.scene})
			require.NotContains(t, []corev1.PodPhase{corev1.PodPending, corev1.PodRunning}, w.Pod.Status.Phase, "Airflow sees no end\n%s", full{w.scene})
			require.Empty(t, w.Pod.Annotations[AnnotationDetached], "Airflow does not see the pod\n%s", full{w.scene})
		} else {
			require.False(t, Attached(w.Pod), "Airflow sees it\n%s", full{w.scene})
		}
	}
}

func TestARequeueIsFourWritesOnTheOldPod(t *testing.T) {
	w := worldOf(given(rejected))
	w.settle(t)
	require.Equal(t, []Action{Detach, Create, Commit, Strip}, w.writes)
	require.Len(t, w.Siblings.Pods, 1)
	require.Equal(t, "7", w.Siblings.Pods[0].Labels[LabelWorker])
}

func TestAnUnscheduledPodsReportIsTwoWritesAndALinger(t *testing.T) {
	w := worldOf(given(deleted(ago(0)), noRow))
	w.settle(t)
	require.Equal(t, []Action{MarkFailed, Report, Strip}, w.writes)
	require.True(t, w.now.After(noon().Add(LingerFor)))
}

func TestAnImagePullIsRecordedDeletedAndReplaced(t *testing.T) {
	w := worldOf(given(onNode(), waiting("ErrImagePull", "503"), queued))
	w.settle(t)
	require.Equal(t, []Action{Record, Record, Delete, Detach, Create, Commit, Strip}, w.writes)
	require.Equal(t, "ImagePull", w.Pod.Annotations[AnnotationReason])
}
