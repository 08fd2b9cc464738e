package requeue

import (
	"iter"
	"math/rand/v2"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// scenes yields n scenes, the same for the same seed: every feature that a rule looks at, in all combinations, also
// those that no cluster shows. What is rare in life is made common enough to meet everything else.
func scenes(seed uint64, n int) iter.Seq2[int, scene] {
	return func(yield func(int, scene) bool) {
		g := generator{rand.New(rand.NewPCG(seed, 0))}
		for i := range n {
			if !yield(i, g.scene()) {
				return
			}
		}
	}
}

type generator struct{ *rand.Rand }

// one in n.
func (g generator) one(n int) bool { return g.IntN(n) == 0 }

func pick[T any](g generator, from ...T) T { return from[g.IntN(len(from))] }

func (g generator) scene() scene {
	s := scene{policy: DefaultPolicy(), now: noon(), Input: Input{Pod: heldPod(podName, "uid-0")}}
	g.policy(&s)
	g.seal(&s)
	g.stamps(&s)
	g.life(&s)
	g.containers(&s)
	g.row(&s)
	g.siblings(&s)
	s.SeenQueued = pick(g, time.Time{}, queuedAt(), queuedAt(), ago(time.Hour))
	if s.Row.State == Found {
		s.Row.Since = pick(g, ago(0), ago(time.Second), ago(40*time.Second), ago(3*time.Minute))
	}
	s.Spent = pick(g, 0, 0, 0, 1, 2)
	s.NamespaceTerminating = g.one(30)
	s.Refused = pick(g, Refusal{}, Refusal{}, Refusal{Kind: RefusedForGood, Message: "no"},
		Refusal{Kind: RefusedForNow, Message: "exceeded quota", RetryAt: ago(time.Second)},
		Refusal{Kind: RefusedForNow, Message: "exceeded quota", RetryAt: ago(-5 * time.Second)},
		Refusal{Kind: RefusedForNow, Message: "exceeded quota", RetryAt: ago(-time.Minute)},
		Refusal{Kind: RefusedForNow, Message: "exceeded quota", RetryAt: ago(-time.Minute)})
	s.Storm = g.one(6)
	return s
}

func (g generator) policy(s *scene) {
	p := &s.policy
	p.MaxRetries = pick(g, 0, 1, 1, 3, Unlimited)
	p.ExcludedReasons = pick(g, []string{"Error"}, []string{"Error"}, []string{}, []string{"OOMKilled", "Error"})
	p.Backoff = pick(g, 0, 5*time.Second, time.Minute)
	p.ImagePullGrace = pick(g, 0, 2*time.Minute)
	p.StartDeadline = pick(g, 0, 0, 30*time.Second, 10*time.Minute)
	p.AvoidFailedNode = g.one(2)
	p.TaskQueuedTimeout = pick(g, 10*time.Minute, 10*time.Minute, 80*time.Second)
}

func (g generator) seal(s *scene) {
	switch g.IntN(20) {
	case 0:
		badSeal(s)
	case 1:
		unknownKeyFor(pick(g, time.Second, time.Hour))(s)
	default:
		s.Seal = Seal{State: SealValid, Job: Job{
			Ref:       Ref{Key: Key{DagID: "etl", TaskID: "load", RunID: "manual__1", MapIndex: -1}, ID: pick(g, taskID, "")},
			TryNumber: 1, IssuedAt: pick(g, issuedAt(), time.Time{}),
			Expires: pick(g, time.Time{}, issuedAt().Add(10*time.Minute), ago(time.Second), ago(-40*time.Second)),
			Tuning:  pick(g, nil, nil, map[string]string{AnnotationMaxRetries: "2", AnnotationBackoff: "soon"}),
		}}
	}
}

func (g generator) stamps(s *scene) {
	pod := s.Pod
	if g.one(20) {
		unstamped(s)
	}
	if g.one(40) {
		pod.Annotations[AnnotationCallbackID] = "c-1"
	}
	if g.one(40) {
		delete(pod.Labels, LabelKubernetesExecutor)
	}
	if g.one(15) {
		noFinalizer(s)
	}
	if g.one(15) {
		delete(pod.Labels, LabelTracked)
	}
	switch g.IntN(12) {
	case 0:
		delete(pod.Labels, LabelHold)
	case 1:
		pod.Labels[LabelHold] = pick(g, "True", "")
	}
	if g.one(2) {
		asReplacement(s)
		pod.Annotations[AnnotationAttempt] = strconv.Itoa(1 + g.IntN(3))
		pod.Annotations[AnnotationNotBefore] = pick(g, "", FormatTime(ago(time.Second)), FormatTime(ago(-20*time.Second)))
		if g.one(3) {
			pod.Annotations[AnnotationQueuedAt] = pick(g, "", FormatTime(ago(time.Hour)))
		}
		if g.one(3) {
			uncommitted(s)
		}
		if g.one(2) {
			gateOn(s)
		}
	}
	if g.one(3) {
		detached(s)
		if g.one(2) {
			marked(s)
		}
	}
	switch g.IntN(6) {
	case 0:
		pod.Labels[LabelWorker] = pick(g, "9", "x", "")
	case 1:
		delete(pod.Labels, LabelWorker)
	}
	if g.one(3) {
		reason := pick(g, ReasonMisconfigured, ReasonImagePull, ReasonStartDeadline, ReasonSuperseded, ReasonEvicted, "")
		reasonRecorded(reason, pick(g, "x", ""))(s)
	}
	if g.one(3) {
		pod.Annotations[AnnotationWaitingSince] = pick(g, FormatTime(ago(time.Second))+" base", FormatTime(ago(time.Hour))+" base",
			FormatTime(ago(time.Hour))+" fetch", "yesterday")
	}
	if g.one(10) {
		pod.Annotations[AnnotationReleasedAt] = pick(g, FormatTime(ago(time.Second)), FormatTime(ago(time.Minute)), "")
	}
	if g.one(15) {
		pod.Annotations[AnnotationDiscarded] = pick(g, "true", "false")
	}
}

func (g generator) life(s *scene) {
	s.Pod.Status.Phase = pick(g, corev1.PodPending, corev1.PodPending, corev1.PodRunning, corev1.PodRunning, corev1.PodSucceeded,
		corev1.PodFailed, corev1.PodFailed, corev1.PodFailed, corev1.PodUnknown, "")
	if Gated(s.Pod) { // the API server sees to it that such a pod gets no node
		s.Pod.Status.Phase = pick(g, corev1.PodPending, corev1.PodPending, corev1.PodPending, corev1.PodFailed)
	} else if !g.one(3) {
		onNode()(s)
	}
	if g.one(3) {
		deleted(pick(g, ago(0), ago(-20*time.Second), ago(time.Minute), ago(10*time.Minute)))(s)
	}
	s.Pod.Status.Reason = pick(g, "", "", "", "", "", "Evicted", "NodeAffinity", "OutOfcpu", "DeadlineExceeded", "Terminated", "ProviderFailed")
	s.Pod.Status.PodIP = pick(g, "", podIP)
	if g.one(4) {
		disrupted(pick(g, corev1.ConditionTrue, corev1.ConditionTrue, corev1.ConditionFalse), pick(g, "EvictionByEvictionAPI", "DeletionByPodGC"), "")(s)
	}
}

func (g generator) containers(s *scene) {
	if g.one(3) {
		return
	}
	state := func() corev1.ContainerState {
		switch g.IntN(5) {
		case 0, 1:
			reason := pick(g, "ContainerCreating", "PodInitializing", "InvalidImageName", "ErrImagePull", "ImagePullBackOff", "CreateContainerConfigError")
			return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: pick(g, "503", "rpc error: code = NotFound")}}
		case 2:
			return corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
		default:
			return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
				Reason:   pick(g, "Error", "Error", "OOMKilled", "ContainerStatusUnknown", "Completed"),
				ExitCode: pick[int32](g, 0, 1, 137, 143)}}
		}
	}
	if g.one(3) {
		if g.one(2) {
			sidecar("fetch")(s)
		}
		initIn("fetch", state())(s)
	}
	containerIn(BaseContainer, state())(s)
}

func (g generator) row(s *scene) {
	switch g.IntN(10) {
	case 0, 1:
	case 2:
		unreadableFor(pick(g, time.Second, time.Hour))(s)
	case 3:
		noRow(s)
	default:
		s.Row = Lookup{State: Found, Task: TaskInstance{ID: taskID, State: StateQueued, TryNumber: 1, QueuedAt: queuedAt(), QueuedByJobID: 7}}
		t := &s.Row.Task
		if !g.one(2) {
			return
		}
		t.State = pick(g, StateQueued, StateQueued, StateScheduled, StateRunning, StateRunning, "failed", "success", "deferred", "")
		t.ID = pick(g, taskID, taskID, taskID, otherID, "")
		t.TryNumber = pick(g, 1, 1, 1, 2)
		t.Hostname = pick(g, "", s.Pod.Name, s.Pod.Name, podIP, "winner", "nowhere")
		t.QueuedAt = pick(g, queuedAt(), queuedAt(), ago(5*time.Second), ago(time.Hour), time.Time{})
		t.QueuedByJobID = pick[int64](g, 0, 3, 7, 9)
	}
}

func (g generator) siblings(s *scene) {
	add := func(name string, uid types.UID, changes ...change) {
		s.Siblings.Pods = append(s.Siblings.Pods, sibling(name, uid, changes...))
	}
	maybe := func(c change) change {
		if g.one(3) {
			return c
		}
		return all()
	}
	s.Siblings.Live = g.one(2)
	if of := RequeueOf(s.Pod); of != "" && g.one(3) {
		add(podName, types.UID(of), failed, detached, maybe(all(noLabel(LabelTracked), noFinalizer)))
	}
	for i := range pick(g, 0, 0, 0, 0, 1, 2) {
		uid := types.UID("uid-r" + strconv.Itoa(i))
		add(s.Pod.Name+"-r"+strconv.Itoa(i+1), uid, annotation(AnnotationRequeueOf, string(s.Pod.UID)), annotation(AnnotationOrigin, podName),
			gateOn, pick(g, uncommitted, annotation(AnnotationCommitted, "true")), maybe(label(LabelWorker, "9")), maybe(noLabel(LabelTracked)))
	}
	if g.one(4) {
		add("winner", "uid-5", running, maybe(noLabel(LabelHold)), maybe(detached), maybe(label(LabelHold, "True")), maybe(phase(corev1.PodFailed)))
	}
	if g.one(4) {
		add("later", "uid-6", maybe(annotation(annotationTryNumber, "2")))
	}
}
