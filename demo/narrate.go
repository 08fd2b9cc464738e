package main

import (
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// narrate tells in lines what has changed of a pod. A line without text is that of a report, whose reason an Event has.
func narrate(old, pod *corev1.Pod, r *record) []line {
	if old == nil {
		return appeared(pod)
	}
	var lines []line
	tell := func(actor, format string, args ...any) *line {
		text := fmt.Sprintf(format, args...)
		lines = append(lines, line{actor: actor, text: func() string { return text }})
		return &lines[len(lines)-1]
	}
	if requeue.Gated(old) && !requeue.Gated(pod) {
		tell("requeue", "%s", replacing(pod, r))
	}
	// The executor deletes pods that succeeded; that is no news.
	if old.DeletionTimestamp == nil && pod.DeletionTimestamp != nil && pod.Status.Phase != corev1.PodSucceeded {
		l := tell(deleter(pod), "%s", deletion(pod))
		l.ending = pod.Spec.NodeName == ""
	}
	if text := condition(old, pod); text != "" {
		tell("scheduler", "%s", text)
	}
	if text := status(old, pod); text != "" {
		l := tell(pod.Spec.NodeName, "%s", text)
		l.ending = pod.Status.Phase == corev1.PodFailed
	}
	if released(old, pod) {
		if pod.Status.Phase == corev1.PodFailed {
			lines = append(lines, line{actor: "requeue"})
		} else {
			tell("requeue", "lifts the hold: the task has started, all else is Airflow's")
		}
	}
	return lines
}

// appeared tells of a pod that was created. Replacements are told of when they are free to run.
func appeared(pod *corev1.Pod) []line {
	text := "holds it"
	switch {
	case requeue.RequeueOf(pod) != "":
		return nil
	case !requeue.Held(pod):
		text = "does not hold it"
	}
	return []line{{actor: "webhook", text: func() string { return text }}}
}

func replacing(pod *corev1.Pod, r *record) string {
	reason := "?"
	if old := r.predecessor(pod); old != nil {
		reason = old.Annotations[requeue.AnnotationReason]
	}
	since := r.free[pod.UID].Sub(r.ended[types.UID(requeue.RequeueOf(pod))])
	return fmt.Sprintf("replaces it by %s (%s), free to run after %d ms", short(pod), reason, since.Round(time.Millisecond).Milliseconds())
}

// deleter is who asked for a pod's deletion, as far as the pod tells.
func deleter(pod *corev1.Pod) string {
	if pod.Annotations[requeue.AnnotationReason] != "" {
		return "requeue"
	}
	return "apiserver"
}

func deletion(pod *corev1.Pod) string {
	how := "is deleted"
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.DisruptionTarget && c.Status == corev1.ConditionTrue {
			how = "is evicted"
		}
	}
	switch reason := pod.Annotations[requeue.AnnotationReason]; {
	case reason != "":
		return fmt.Sprintf("deletes %s (%s) and waits for its end", short(pod), reason)
	case pod.Spec.NodeName == "":
		return short(pod) + " " + how + " and has no node"
	}
	return short(pod) + " " + how
}

func condition(old, pod *corev1.Pod) string {
	message := func(p *corev1.Pod) string {
		for _, c := range p.Status.Conditions {
			if c.Type == corev1.PodScheduled && c.Reason == corev1.PodReasonUnschedulable {
				return c.Message
			}
		}
		return ""
	}
	if m := message(pod); m != message(old) {
		return m
	}
	return ""
}

// status tells what a kubelet wrote, once for each state; an image pull goes on and on.
func status(old, pod *corev1.Pod) string {
	before, now := state(old), state(pod)
	if now == "" || before == now || strings.HasPrefix(before, "ErrImagePull") || strings.HasPrefix(before, "ImagePullBackOff") {
		if pod.Status.Phase == old.Status.Phase {
			return ""
		}
	}
	return short(pod) + ": " + now
}

// state says in the kubelet's words how a pod is.
func state(pod *corev1.Pod) string {
	words := []string{}
	switch pod.Status.Phase {
	case corev1.PodRunning, corev1.PodSucceeded, corev1.PodFailed:
		words = append(words, string(pod.Status.Phase))
	}
	if pod.Status.Reason != "" {
		words = append(words, pod.Status.Reason)
	}
	for _, s := range pod.Status.ContainerStatuses {
		switch w, t := s.State.Waiting, s.State.Terminated; {
		case w != nil && w.Message != "": // the last part is what happened, before it stands what to
			words = append(words, w.Reason, strings.TrimSpace(w.Message[strings.LastIndex(w.Message, ": ")+1:]))
		case w != nil:
			words = append(words, w.Reason)
		case t != nil && pod.Status.Phase == corev1.PodFailed:
			words = append(words, fmt.Sprintf("%s, exit code %d", t.Reason, t.ExitCode))
		}
	}
	return strings.Join(words, ", ")
}

// released reports whether the hold was lifted.
func released(old, pod *corev1.Pod) bool {
	return old != nil && requeue.Held(old) && !requeue.Held(pod)
}

// short is how a pod is called where its task is plain.
func short(pod *corev1.Pod) string {
	if attempt := requeue.Attempt(pod); attempt > 0 {
		return fmt.Sprintf("…-r%d", attempt)
	}
	return "the pod"
}
