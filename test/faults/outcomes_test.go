package faults

import (
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/airflow-requeue/airflow-requeue/internal/executor"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// outcome is a way that a pod goes. All of them together have every write that a watcher makes.
type outcome struct {
	name   string // of the chains
	tuning map[string]string
	change func(*executor.Task)
	// play drives the pod to its end, past what the watcher waits for.
	play func(*play)
	// overtake happens just before the first replacement is committed.
	overtake func(*play)
	// saw is what the executor is to see of it, "pod" being the first pod; empty for nothing.
	saw string
	// replacementLives says that the replacement is left as it is when it may run: tracked and held, by right.
	replacementLives bool
	// apart says that its plays want a namespace of their own, few at a time: quotas make every create there slow.
	apart bool
}

// called is the outcome with another name.
func (o outcome) called(name string) outcome {
	o.name = name
	return o
}

func outcomes() []outcome {
	return append(replacing(), reporting()...)
}

// replacing are the outcomes with a replacement. It runs to success in one of them, and is left free to run in the
// others: what becomes of it does not depend on what it replaces.
func replacing() []outcome {
	return []outcome{
		{name: "evicted", replacementLives: true, play: func(p *play) {
			pod := p.creating(p.pod)
			p.must(nil, p.Kubelet.Evict(p.t.Context(), pod))
			p.must(nil, p.Kubelet.Terminate(p.t.Context(), pod, 137))
			p.untilFree("-r1")
		}},
		{name: "rejected", saw: "succeeded pod-r1", play: func(p *play) {
			p.reject(p.pod)
			p.runToSuccess("-r1")
		}},
		{name: "unscheduled", replacementLives: true, play: func(p *play) {
			p.must(nil, p.Scheduler.Delete(p.t.Context(), p.name))
			p.untilFree("-r1")
		}},
		{name: "image-pull", replacementLives: true, tuning: map[string]string{requeue.AnnotationImagePullGrace: "100ms"}, play: func(p *play) {
			_, err := p.Kubelet.ImagePull(p.t.Context(), p.bound(p.pod), "failed with status code [manifests latest]: 503 Service Unavailable")
			p.must(nil, err)
			p.endDeleted()
			p.untilFree("-r1")
		}},
		{name: "quota", replacementLives: true, apart: true, change: askForScarce, play: func(p *play) {
			p.fillQuota()
			p.reject(p.pod)
			p.untilAttachedAgain()
			p.liftQuota()
			p.untilFree("-r1")
		}},
		{name: "exhausted", saw: "failed pod-r1", play: func(p *play) {
			p.reject(p.pod)
			p.reject(p.untilFree("-r1"))
		}},
		{name: "overtaken", saw: "failed pod-r1", play: func(p *play) { p.reject(p.pod) }, overtake: func(p *play) {
			p.row(func(row *requeue.TaskInstance) { row.State = "failed" })
		}},
		{name: "queued-again-while-gated", play: func(p *play) { p.reject(p.pod) }, overtake: (*play).queueAgain},
	}
}

// reporting are the outcomes without a replacement.
func reporting() []outcome {
	noRetries := map[string]string{requeue.AnnotationMaxRetries: "0"}
	return []outcome{
		{name: "unscheduled-no-retries", saw: "failed pod", tuning: noRetries, play: func(p *play) {
			p.must(nil, p.Scheduler.Delete(p.t.Context(), p.name))
		}},
		{name: "real-failure", saw: "failed pod", play: func(p *play) {
			_, err := p.Kubelet.Fail(p.t.Context(), p.started(p.pod))
			p.must(nil, err)
		}},
		{name: "real-failure-while-leaving", saw: "failed pod", play: func(p *play) {
			pod := p.started(p.pod)
			p.must(nil, p.Kubelet.Evict(p.t.Context(), pod))
			p.must(nil, p.Kubelet.Terminate(p.t.Context(), pod, 1))
		}},
		{name: "misconfigured", saw: "failed pod", play: func(p *play) {
			_, err := p.Kubelet.Waiting(p.t.Context(), p.bound(p.pod), "InvalidImageName", "couldn't parse image name")
			p.must(nil, err)
			p.endDeleted()
		}},
		{name: "refused", saw: "failed pod", change: func(task *executor.Task) { task.Labels = map[string]string{labelRefused: "true"} }, play: func(p *play) {
			p.reject(p.pod)
		}},
		{name: "succeeded", saw: "succeeded pod", play: func(p *play) {
			_, err := p.Kubelet.Succeed(p.t.Context(), p.started(p.pod))
			p.must(nil, err)
		}},
		{name: "running", saw: "succeeded pod", play: func(p *play) { p.runToSuccess("") }},
		{name: "queued-again", play: func(p *play) {
			pod := p.started(p.pod)
			p.queueAgain()
			p.must(nil, p.Kubelet.Evict(p.t.Context(), pod))
			p.must(nil, p.Kubelet.Terminate(p.t.Context(), pod, 143))
		}},
		{name: "revoked", play: func(p *play) {
			p.must(nil, p.Scheduler.MarkRevoked(p.t.Context(), p.name))
			p.must(nil, p.Scheduler.Delete(p.t.Context(), p.name))
		}},
	}
}

// must ends the test on an error, and passes a pod through.
func (p *play) must(pod *corev1.Pod, err error) *corev1.Pod {
	p.t.Helper()
	require.NoError(p.t, err)
	return pod
}

func (p *play) bound(pod *corev1.Pod) *corev1.Pod {
	p.t.Helper()
	return p.must(p.Kubelet.Bind(p.t.Context(), pod, "node-a"))
}

func (p *play) creating(pod *corev1.Pod) *corev1.Pod {
	p.t.Helper()
	return p.must(p.Kubelet.Create(p.t.Context(), p.bound(pod)))
}

func (p *play) started(pod *corev1.Pod) *corev1.Pod {
	p.t.Helper()
	return p.must(p.Kubelet.Start(p.t.Context(), p.creating(pod)))
}

func (p *play) reject(pod *corev1.Pod) {
	p.t.Helper()
	p.must(p.Kubelet.Reject(p.t.Context(), p.bound(pod), "OutOfcpu", "Node didn't have enough resource: cpu"))
}

// untilFree waits for a replacement that may run.
func (p *play) untilFree(end string) *corev1.Pod {
	p.t.Helper()
	return p.until(p.name+end, "free to run", func(pod *corev1.Pod) bool { return pod != nil && !requeue.Gated(pod) })
}

// runToSuccess has the pod of that end of the name run its task, and waits for the hold to be lifted before the pod
// succeeds.
func (p *play) runToSuccess(end string) {
	p.t.Helper()
	pod := p.untilFree(end)
	p.row(func(row *requeue.TaskInstance) { row.State, row.Hostname = requeue.StateRunning, pod.Name })
	p.started(pod)
	p.until(pod.Name, "released", func(pod *corev1.Pod) bool { return pod != nil && !requeue.Tracked(pod) })
	p.row(func(row *requeue.TaskInstance) { row.State, row.Hostname = "success", pod.Name })
	p.must(p.Kubelet.Succeed(p.t.Context(), pod))
}

// endDeleted is the kubelet's part when the watcher has deleted the pod.
func (p *play) endDeleted() {
	p.t.Helper()
	pod := p.until(p.name, "deleted by the watcher", func(pod *corev1.Pod) bool { return pod != nil && pod.DeletionTimestamp != nil })
	p.must(nil, p.Kubelet.Terminate(p.t.Context(), pod, 137))
}

// queueAgain is another queueing of the same try, with its pod: a deferral's resume, or a task that was stuck in queued.
func (p *play) queueAgain() {
	p.t.Helper()
	later := p.task.Again(p.task.QueuedAt.Add(time.Minute))
	later.Name, later.Namespace = p.name+"-later", p.Namespace
	row := later.Row()
	assert.NoError(p.t, p.rows.Update(p.t.Context(), row))
	_, err := p.Client.CoreV1().Pods(p.Namespace).Create(p.t.Context(), executor.Pod(later), metav1.CreateOptions{})
	assert.NoError(p.t, err)
}
