package scenarios

import (
	"fmt"
	"strings"
	"time"

	"github.com/stretchr/testify/assert"
	corev1 "k8s.io/api/core/v1"

	"github.com/airflow-requeue/airflow-requeue/internal/executor"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// Rows 16 to 19: pods that are Pending for too long, or for good.

const (
	unavailable = "failed to pull and unpack image: failed with status code [manifests latest]: 503 Service Unavailable"
	notFound    = `rpc error: code = NotFound desc = failed to pull and unpack image "apache/airflow": not found`
	short       = 2 * time.Second  // a grace that is to pass
	patience    = 30 * time.Second // one that is to be there still after a few requests
)

// graced gives an image pull a short grace.
func graced() func(*executor.Task) { return tuned(requeue.AnnotationImagePullGrace, short.String()) }

// spent has no replacement left: it is one.
func (s *stage) spent(task executor.Task) *corev1.Pod {
	s.T.Helper()
	return s.untilFree(s.reject(s.submit(task)))
}

// waitedOut says that a pod was deleted when its wait, recorded when it was first seen, was over.
func (s *stage) waitedOut(pod *corev1.Pod, container string) {
	s.T.Helper()
	var recorded string
	s.at(pod, "recorded since when it waits", func(p *corev1.Pod) bool {
		recorded = p.Annotations[requeue.AnnotationWaitingSince]
		return recorded != ""
	})
	stamp, who, _ := strings.Cut(recorded, " ")
	assert.Equal(s.T, container, who)
	since, err := time.Parse(time.RFC3339Nano, stamp)
	assert.NoError(s.T, err)
	assert.GreaterOrEqual(s.T, s.at(pod, "deleted", func(p *corev1.Pod) bool { return p.DeletionTimestamp != nil }).Sub(since), short)
	assert.Equal(s.T, recorded, pod.Annotations[requeue.AnnotationWaitingSince], "it is recorded once")
}

// hopeless is row 16: the pod can never start as it was submitted.
func hopeless(reason, message string, atOnce bool) scenario {
	when := "at once"
	if !atOnce {
		when = "after image-pull-grace"
	}
	seen := "Pending, " + reason
	if strings.Contains(message, "NotFound") {
		seen += " (code = NotFound)"
	}
	return scenario{row: "16", seen: seen, want: "delete " + when + ", Misconfigured; at its end report", play: func(s *stage) {
		pod := s.ok(s.Kubelet.Waiting(s.T.Context(), s.creating(s.queue(graced())), reason, message))
		words := fmt.Sprintf("container base: %s: %s", reason, message)
		pod = s.deleted(pod, requeue.ReasonMisconfigured, words)
		if atOnce {
			assert.NotContains(s.T, pod.Annotations, requeue.AnnotationWaitingSince)
		} else {
			s.waitedOut(pod, "base")
		}
		s.do(s.Kubelet.Terminate(s.T.Context(), pod, 137)) // which says ContainerStatusUnknown
		s.reported(pod, requeue.ReasonMisconfigured, words)
		s.untilGone(pod)
		s.saw("failed " + pod.Name)
	}}
}

// pulling is row 17: the image can't be pulled, for now.
func pulling(reason string) scenario {
	return scenario{row: "17", seen: "Pending, " + reason + " for image-pull-grace, budget left", want: "record, delete, ImagePull; at its end requeue", play: func(s *stage) {
		pod := s.creating(s.queue(graced()))
		pod = s.ok(s.Kubelet.Waiting(s.T.Context(), pod, reason, unavailable))
		pod = s.deleted(pod, requeue.ReasonImagePull, "container base: "+reason+": "+unavailable)
		s.waitedOut(pod, "base")
		s.do(s.Kubelet.Terminate(s.T.Context(), pod, 137))
		s.replaced(pod, requeue.ReasonImagePull, unavailable)
		s.sawNothing()
	}}
}

func waiting() []scenario {
	return []scenario{
		hopeless("InvalidImageName", `couldn't parse image reference "Not An Image"`, true),
		hopeless("ErrImageNeverPull", "Container image is not present with pull policy of Never", true),
		hopeless("ErrImagePull", notFound, false),
		hopeless("ImagePullBackOff", "Back-off pulling image: ErrImagePull: "+notFound, false),
		hopeless("CreateContainerConfigError", `secret "airflow-fernet-key" not found`, false),
		hopeless("CreateContainerError", "failed to generate container spec", false),
		hopeless("ImageInspectError", "failed to inspect image", false),
		{row: "16", seen: "Pending, CreateContainerConfigError that passes within image-pull-grace", want: "leave it", grace: patience, play: func(s *stage) {
			task := s.queue(tuned(requeue.AnnotationImagePullGrace, patience.String()))
			pod := s.ok(s.Kubelet.Waiting(s.T.Context(), s.creating(task), "CreateContainerConfigError", "configmap not found"))
			s.until(pod.Name, "recorded since when it waits", func(p *corev1.Pod) bool { return p.Annotations[requeue.AnnotationWaitingSince] != "" })
			pod = s.ok(s.Kubelet.Create(s.T.Context(), pod))
			s.eventually("the grace is over", func() bool { return time.Since(pod.CreationTimestamp.Time) > patience+5*time.Second })
			s.stays(s.live(pod))
			assert.Nil(s.T, s.live(pod).DeletionTimestamp)
			s.sawNothing()
		}},

		pulling("ErrImagePull"), pulling("ImagePullBackOff"), pulling("RegistryUnavailable"), pulling("SignatureValidationFailed"),
		{row: "17", seen: "Pending, ErrImagePull and ImagePullBackOff by turns for image-pull-grace, budget left", want: "record, delete, ImagePull; at its end requeue", play: func(s *stage) {
			pod := s.creating(s.queue(graced()))
			s.eventually("it is deleted", func() bool {
				p := s.record.Latest(pod.Name)
				if p.DeletionTimestamp != nil {
					return true
				}
				_, err := s.Kubelet.ImagePull(s.T.Context(), pod, unavailable)
				return !assert.NoError(s.T, err)
			})
			pod = s.deleted(pod, requeue.ReasonImagePull, unavailable)
			s.waitedOut(pod, "base")
			s.do(s.Kubelet.Terminate(s.T.Context(), pod, 137))
			s.replaced(pod, requeue.ReasonImagePull, unavailable)
			s.sawNothing()
		}},
		{row: "17", seen: "Pending, ErrImagePull for image-pull-grace, budget used up", want: "wait", play: func(s *stage) {
			pod := s.ok(s.Kubelet.Waiting(s.T.Context(), s.made(s.spent(s.queue(graced()))), "ErrImagePull", unavailable))
			pod = s.until(pod.Name, "recorded since when it waits", func(p *corev1.Pod) bool { return p.Annotations[requeue.AnnotationWaitingSince] != "" })
			since := time.Now()
			s.eventually("the grace is over", func() bool { return time.Since(since) > short+time.Second })
			s.stays(pod)
			s.sawNothing()
		}},

		{row: "18", seen: "Pending longer than start-deadline, without a node, budget left", want: "delete, StartDeadline; at its end requeue", grace: patience, play: func(s *stage) {
			pod := s.submit(s.queue(tuned(requeue.AnnotationStartDeadline, patience.String())))
			pod = s.ok(s.Kubelet.Unschedulable(s.T.Context(), pod, "0/3 nodes are available"))
			s.deleted(pod, requeue.ReasonStartDeadline, "Pending for longer than the start deadline of "+patience.String())
			assert.GreaterOrEqual(s.T, s.at(pod, "deleted", func(p *corev1.Pod) bool { return p.DeletionTimestamp != nil }).Sub(pod.CreationTimestamp.Time), patience)
			s.replaced(pod, requeue.ReasonStartDeadline, "Pending for longer than the start deadline of "+patience.String())
			s.sawNothing()
		}},
		{row: "18", seen: "Pending longer than start-deadline, in ContainerCreating, budget left", want: "delete, StartDeadline; at its end requeue", grace: patience, play: func(s *stage) {
			pod := s.creating(s.queue(tuned(requeue.AnnotationStartDeadline, patience.String())))
			pod = s.deleted(pod, requeue.ReasonStartDeadline, "Pending for longer than the start deadline of "+patience.String())
			s.do(s.Kubelet.Terminate(s.T.Context(), pod, 137))
			s.replaced(pod, requeue.ReasonStartDeadline, "Pending for longer than the start deadline of "+patience.String())
			s.sawNothing()
		}},
		{row: "18", seen: "Pending longer than start-deadline, while row 17 waits for its grace", want: "delete, StartDeadline; at its end requeue", grace: patience, play: func(s *stage) {
			pod := s.creating(s.queue(tuned(requeue.AnnotationStartDeadline, patience.String())))
			s.ok(s.Kubelet.Waiting(s.T.Context(), pod, "ErrImagePull", unavailable))
			pod = s.deleted(pod, requeue.ReasonStartDeadline, "Pending for longer than the start deadline of "+patience.String())
			s.do(s.Kubelet.Terminate(s.T.Context(), pod, 137))
			s.replaced(pod, requeue.ReasonStartDeadline, "Pending for longer than the start deadline of "+patience.String())
			s.sawNothing()
		}},
		{row: "18", seen: "Pending longer than start-deadline, row queued by a later queueing", want: "wait", grace: patience, play: func(s *stage) {
			task := s.queue(tuned(requeue.AnnotationStartDeadline, patience.String()))
			pod := s.creating(task)
			s.queueAgain(task, time.Minute)
			s.eventually("the deadline is over", func() bool { return time.Since(pod.CreationTimestamp.Time) > patience+2*time.Second })
			s.stays(pod)
			s.sawNothing()
		}},

		{row: "19", seen: "Pending, unschedulable", want: "wait", play: func(s *stage) {
			s.stays(s.ok(s.Kubelet.Unschedulable(s.T.Context(), s.submit(s.queue()), "0/3 nodes are available")))
			s.sawNothing()
		}},
		{row: "19", seen: "Pending, ContainerCreating", want: "wait", play: func(s *stage) {
			s.stays(s.creating(s.queue()))
			s.sawNothing()
		}},
		{row: "19", seen: "Pending, init containers run", want: "wait", play: func(s *stage) {
			s.stays(s.creating(s.queue(withInit)))
			s.sawNothing()
		}},
		{row: "19", seen: "Pending, a replacement that nothing happens to, row failed", want: "its row is looked at once a minute", grace: time.Minute, play: func(s *stage) {
			task := s.queue()
			pod := s.untilFree(s.reject(s.submit(task)))
			s.stays(pod)
			s.row(task, state("failed"))
			s.deleted(pod, requeue.ReasonSuperseded, "no longer queued as it was for this pod")
			s.reported(pod, requeue.ReasonNotQueued, "the task instance is failed")
			s.saw("failed " + pod.Name)
		}},
	}
}

// withInit gives a pod an init container.
func withInit(task *executor.Task) {
	task.Mutate = func(pod *corev1.Pod) {
		pod.Spec.InitContainers = append(pod.Spec.InitContainers, corev1.Container{Name: "prepare", Image: "apache/airflow"})
	}
}
