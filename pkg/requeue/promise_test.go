package requeue

import (
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
)

// promise is what must hold of every decision, whatever the input.
type promise struct {
	name string
	of   func(scene, Decision) bool // the decisions that it is about
	kept func(scene, Decision) bool
}

func does(actions ...Action) func(scene, Decision) bool {
	return func(_ scene, d Decision) bool { return slices.Contains(actions, d.Action) }
}

func always(scene, Decision) bool { return true }

// queuedHere says, in other words than the rules do, that the row is queued as it was for the pod. Airflow queues no row
// without a queued_dttm.
func queuedHere(s scene) bool {
	t, known := s.Row.Task, s.SeenQueued
	if v, err := time.Parse(time.RFC3339Nano, s.Pod.Annotations[AnnotationQueuedAt]); err == nil {
		known = v
	}
	ours := s.Seal.State == SealValid && s.Row.State == Found && t.State == "queued" && !t.QueuedAt.IsZero() && t.TryNumber == s.Seal.Job.TryNumber
	if ours && s.Seal.Job.Ref.ID != "" && t.ID != "" {
		ours = s.Seal.Job.Ref.ID == t.ID
	}
	if known.IsZero() {
		return ours && t.QueuedAt.Before(createdAt().Add(11*time.Second))
	}
	return ours && t.QueuedAt.Equal(known)
}

// replacements are the siblings that replace the pod.
func replacements(s scene) []*corev1.Pod {
	return slices.DeleteFunc(slices.Clone(s.Siblings.Pods), func(p *corev1.Pod) bool { return RequeueOf(p) != string(s.Pod.UID) })
}

func promises() []promise {
	return []promise{
		{"a pod is detached only when it has ended", does(Detach), func(s scene, _ Decision) bool { return Ended(s.Pod) }},
		{"a pod is detached only for a row of its queueing, or for a replacement that exists", does(Detach),
			func(s scene, _ Decision) bool { return queuedHere(s) || len(replacements(s)) > 0 }},
		{"a replacement is made only for an ended, detached, sealed pod and a row of its queueing", does(Create), func(s scene, _ Decision) bool {
			return Ended(s.Pod) && Detached(s.Pod) && s.Pod.Labels[LabelWorker] == "" && s.Seal.State == SealValid && queuedHere(s)
		}},
		{"no replacement is made where there is one", does(Create), func(s scene, _ Decision) bool { return len(replacements(s)) == 0 }},
		{"a replacement is the next of its chain, within the budget", does(Create), func(s scene, d Decision) bool {
			p, _ := s.policy.With(s.Seal.Job.Tuning)
			return d.Next.Attempt == Attempt(s.Pod)+1 && (p.MaxRetries == -1 || d.Next.Attempt <= p.MaxRetries && s.Spent < p.MaxRetries)
		}},
		{"a replacement has half a minute left after its backoff", func(_ scene, d Decision) bool {
			return d.Action == Create && !d.Next.QueuedAt.IsZero()
		}, func(s scene, d Decision) bool {
			end := d.Next.QueuedAt.Add(s.policy.TaskQueuedTimeout)
			if x := s.Seal.Job.Expires; !x.IsZero() && x.Before(end) {
				end = x
			}
			return !d.Next.NotBefore.Before(s.now) && end.Sub(d.Next.NotBefore) >= 30*time.Second
		}},
		{"the gate comes off only a committed replacement whose predecessor is gone and whose row is this queueing", does(Ungate),
			func(s scene, _ Decision) bool {
				return Gated(s.Pod) && Committed(s.Pod) && s.Pod.DeletionTimestamp == nil && queuedHere(s) &&
					!slices.ContainsFunc(s.Siblings.Pods, func(p *corev1.Pod) bool { return string(p.UID) == RequeueOf(s.Pod) && Tracked(p) })
			}},
		{"the gate stays on while the backoff lasts", does(Ungate),
			func(s scene, _ Decision) bool { return !annotationTime(s.Pod, AnnotationNotBefore).After(s.now) }},
		{"only a replacement of an ended pod that is out of Airflow's sight is committed", does(Commit), func(s scene, d Decision) bool {
			return Ended(s.Pod) && Detached(s.Pod) && (s.Pod.Labels[LabelWorker] == "" || Committed(d.Replacement)) &&
				slices.Contains(replacements(s), d.Replacement)
		}},
		{"a replacement is committed again only for a scheduler that adopted the old pod", func(_ scene, d Decision) bool {
			return d.Action == Commit && Committed(d.Replacement)
		}, func(s scene, d Decision) bool {
			return d.Worker != "" && d.Worker == s.Pod.Labels[LabelWorker] && d.Worker != d.Replacement.Labels[LabelWorker]
		}},
		{"no second replacement is committed", does(Commit), func(s scene, d Decision) bool {
			return Committed(d.Replacement) || !slices.ContainsFunc(replacements(s), Committed)
		}},
		{"a pod is deleted only while Pending or behind our gate, held, with the reason on it", does(Delete), func(s scene, d Decision) bool {
			return (s.Pod.Status.Phase == corev1.PodPending || Gated(s.Pod)) && s.Pod.DeletionTimestamp == nil && Held(s.Pod) &&
				d.Reason != "" && s.Pod.Annotations[AnnotationReason] == string(d.Reason)
		}},
		{"a pod is marked Failed only when it was deleted before it had a node, or our gate keeps it from one", does(MarkFailed), func(s scene, _ Decision) bool {
			return (s.Pod.DeletionTimestamp != nil && s.Pod.Spec.NodeName == "" || Gated(s.Pod)) && s.Pod.Status.Phase != corev1.PodFailed && s.Pod.Status.Phase != corev1.PodSucceeded
		}},
		{"a pod that is reported after its end is one that Airflow sees as ended", does(Report), func(s scene, _ Decision) bool {
			return !Ended(s.Pod) || s.Pod.Status.Phase == corev1.PodFailed || s.Pod.Status.Phase == corev1.PodSucceeded
		}},
		{"a pod that lives is reported only for its seal, or when it is no task instance's any more", does(Report), func(s scene, d Decision) bool {
			return Ended(s.Pod) || d.Reason == ReasonTampered || d.Reason == ReasonNotOurs
		}},
		{"a pod that lives is released only when its task runs in it, or its node is silent", does(Release), func(s scene, d Decision) bool {
			return s.Pod.Status.Phase == corev1.PodSucceeded || d.Reason == ReasonNodeSilent ||
				s.Pod.Status.Phase == corev1.PodRunning && s.Row.Task.State == "running" && s.Row.Task.Hostname != "" && d.Reason == ReasonStarted
		}},
		{"a pod that failed is never released", does(Release), func(s scene, _ Decision) bool { return s.Pod.Status.Phase != corev1.PodFailed }},
		{"a detach is undone only after a live look that finds no replacement", does(Release, Report, Attach, MarkFailed), func(s scene, _ Decision) bool {
			return !Detached(s.Pod) || !Ended(s.Pod) || s.Siblings.Live && len(replacements(s)) == 0
		}},
		{"a detach is undone only with the mark on the pod", does(Release, Report, Attach, MarkFailed), func(s scene, _ Decision) bool {
			return !Detached(s.Pod) || s.Pod.Annotations[AnnotationUndoing] == "true"
		}},
		{"while the mark is on the pod no replacement is made or committed", func(s scene, _ Decision) bool {
			return s.Pod.Annotations[AnnotationUndoing] == "true"
		}, func(_ scene, d Decision) bool {
			return d.Action != Create && (d.Action != Commit || Committed(d.Replacement))
		}},
		{"while row and pod name different schedulers, no scheduler is given the pod", func(s scene, _ Decision) bool {
			w := Worker(s.Pod)
			return w != "" && queuedHere(s) && s.Row.Task.QueuedByJobID > 0 && w != strconv.FormatInt(s.Row.Task.QueuedByJobID, 10) &&
				s.now.Sub(s.Row.Since) < 2*time.Minute
		}, func(_ scene, d Decision) bool {
			return !slices.Contains([]Action{Release, Report, Attach, Ungate}, d.Action)
		}},
		{"a detach is undone without a report only after a refusal that may pass", does(Attach), func(s scene, _ Decision) bool {
			return Detached(s.Pod) && s.Refused.Kind == RefusedForNow && s.Refused.RetryAt.After(s.now) && queuedHere(s)
		}},
		{"what Airflow sees again carries a scheduler's id, where any is known", does(Release, Report, Attach), func(s scene, d Decision) bool {
			return d.Worker != "none" && (d.Worker != "" || s.Pod.Labels[LabelWorker] == "")
		}},
		{"a terminating pod lingers after its hold is lifted, and no other", does(Release, Report),
			func(s scene, d Decision) bool { return d.Linger == (s.Pod.DeletionTimestamp != nil) }},
		{"a pod is discarded only after its end", does(Discard), func(s scene, _ Decision) bool { return Ended(s.Pod) }},
		{"a pod is discarded only for another that Airflow is to see, or when it never took a place", does(Discard), func(s scene, _ Decision) bool {
			return s.Siblings.Live && len(s.Siblings.Pods) > 0 || RequeueOf(s.Pod) != "" && !Committed(s.Pod)
		}},
		{"a pod that Airflow revoked is only ever stripped", func(s scene, _ Decision) bool { return Revoked(s.Pod) },
			func(_ scene, d Decision) bool { return slices.Contains([]Action{Wait, Ignore, Strip}, d.Action) }},
		{"a pod that carries no hold is only ever stripped", func(s scene, _ Decision) bool { return !Held(s.Pod) },
			func(_ scene, d Decision) bool { return slices.Contains([]Action{Wait, Ignore, Strip}, d.Action) }},
		{"a discarded pod is only ever stripped", func(s scene, _ Decision) bool { return Discarded(s.Pod) },
			func(_ scene, d Decision) bool { return slices.Contains([]Action{Wait, Ignore, Strip}, d.Action) }},
		{"nothing is begun in a terminating namespace", func(s scene, _ Decision) bool { return s.NamespaceTerminating },
			func(_ scene, d Decision) bool {
				return !slices.Contains([]Action{Detach, Create, Commit, Ungate, Delete, Attach, Discard}, d.Action) &&
					(d.Action != Record || d.Annotations[AnnotationUndoing] == "true")
			}},
		{"a pod whose seal is broken is never replaced, ungated, deleted or released",
			func(s scene, _ Decision) bool { return s.Seal.State != SealValid && Held(s.Pod) },
			func(_ scene, d Decision) bool {
				return !slices.Contains([]Action{Create, Ungate, Delete, Release, Attach}, d.Action)
			}},
		{"a row is read only when it was not, and then sealed", func(_ scene, d Decision) bool { return d.Action == Read && d.Need == NeedRow },
			func(s scene, _ Decision) bool { return s.Row.State == Unread }},
		{"a live list is read only when there is none", func(_ scene, d Decision) bool { return d.Action == Read && d.Need == NeedSiblings },
			func(s scene, _ Decision) bool { return !s.Siblings.Live }},
		{"what is read is named, and nothing else is", always, func(_ scene, d Decision) bool { return (d.Action == Read) == (d.Need != 0) }},
		{"a pod whose end needs no row never has one read", does(Read), func(s scene, d Decision) bool {
			return d.Need != NeedRow || s.Pod.Status.Phase != corev1.PodSucceeded || s.Pod.DeletionTimestamp != nil || Detached(s.Pod) || len(s.Pod.Status.Conditions) > 0
		}},
		{"only a wait looks again, and never in the past", always, func(_ scene, d Decision) bool { return d.After == 0 || d.Action == Wait && d.After > 0 }},
		{"a wait without an end is one for an event: of the predecessor, of the phase, of a Pending pod", func(_ scene, d Decision) bool {
			return d.Action == Wait && d.After == 0
		}, func(s scene, d Decision) bool {
			return d.Row == "2" || d.Row == "15" && s.Pod.Status.Phase == corev1.PodPending || d.Row == "19"
		}},
		{"a pod that has ended waits for no event", func(s scene, d Decision) bool { return d.Action == Wait && Ended(s.Pod) && d.Row != "2" },
			func(_ scene, d Decision) bool { return d.After > 0 && d.After <= time.Minute }},
		{"every outcome has a reason, and a message but where its reason says all", func(_ scene, d Decision) bool {
			return d.Action != Wait && d.Action != Read && d.Action != Record
		}, func(_ scene, d Decision) bool {
			return d.Reason != "" && (d.Message != "" || d.Action == Ignore || d.Reason == ReasonSettled)
		}},
		{"annotations are written only along with a record, a detach or a strip", func(_ scene, d Decision) bool { return len(d.Annotations) > 0 },
			does(Record, Detach, Strip)},
		{"no annotation is written empty: that would take it off", does(Record, Detach, Strip), func(_ scene, d Decision) bool {
			for k, v := range d.Annotations {
				if v == "" && k != AnnotationUndoing {
					return false
				}
			}
			return true
		}},
		{"every decision names its row", always, func(_ scene, d Decision) bool { return d.Row != "" }},
	}
}

func TestEveryDecisionKeepsEveryPromise(t *testing.T) {
	t.Parallel()
	promises := promises()
	about, broken := make([]int, len(promises)), make([]bool, len(promises))
	for _, s := range scenes(2, 100_000) {
		if !Tracked(s.Pod) { // nobody asks
			continue
		}
		d := s.decide()
		for i, p := range promises {
			if broken[i] || !p.of(s, d) {
				continue
			}
			about[i]++
			if !p.kept(s, d) {
				broken[i] = true
				t.Errorf("broken: %s\n%+v\n%s", p.name, d, full{s})
			}
		}
	}
	for i, p := range promises {
		require.Greater(t, about[i], 20, "the generator has become narrow: %s", p.name)
	}
}

func TestDecideIsPure(t *testing.T) {
	t.Parallel()
	for _, s := range scenes(3, 5_000) {
		before := s.Pod.DeepCopy()
		siblings := slices.Clone(s.Siblings.Pods)
		first := s.decide()
		require.Equal(t, first, s.decide())
		require.Equal(t, before, s.Pod)
		require.Equal(t, siblings, s.Siblings.Pods)
	}
}

func TestDecideTakesAnInputOfWhichNothingIsKnown(t *testing.T) {
	require.Equal(t, Decision{Action: Ignore, Row: "1", Reason: ReasonNotOurs}, Decide(Input{Pod: &corev1.Pod{}}, Policy{}, time.Time{}))
	held := sibling(podName, "uid-0")
	require.Equal(t, Decision{Action: Report, Row: "3", Reason: ReasonTampered, Message: "the stamps are not what was sealed: ", Worker: "7"},
		Decide(Input{Pod: held}, Policy{}, time.Time{}))
	for _, s := range scenes(4, 5_000) { // no policy, no clock
		require.NotPanics(t, func() { Decide(s.Input, Policy{}, time.Time{}) })
	}
}
