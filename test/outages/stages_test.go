package outages

import (
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/airflow-requeue/airflow-requeue/internal/kubelet"
)

// stage is a state that a pod can be in when the watcher is killed: what happened to the pod, and how many writes the
// watcher got to do about it.
type stage struct {
	writes int
	script func(l *load, pod *corev1.Pod) kubelet.Script
	stays  bool // it may stay as it is
}

// stages are all there are, by the fate that brings a pod there.
func stages() map[fate]stage {
	steps := func(steps ...kubelet.Step) func(*load, *corev1.Pod) kubelet.Script {
		return func(*load, *corev1.Pod) kubelet.Script { return kubelet.Script{Steps: steps} }
	}
	reject := steps(kubelet.Reject("NodeAffinity", "no"))
	return map[fate]stage{
		"pending":  {stays: true, script: func(*load, *corev1.Pod) kubelet.Script { return kubelet.Script{Unschedulable: "no node"} }},
		"creating": {stays: true, script: steps(kubelet.Create())},
		"running": {stays: true, script: func(l *load, _ *corev1.Pod) kubelet.Script {
			return kubelet.Script{Steps: []kubelet.Step{kubelet.Create(), kubelet.Start(), l.process(kubelet.Until(l.over))}}
		}},
		"failed": {script: steps(kubelet.Create(), kubelet.Start(), kubelet.Exit(1, ""))},
		"done": {script: func(l *load, _ *corev1.Pod) kubelet.Script {
			return kubelet.Script{Steps: []kubelet.Step{kubelet.Create(), kubelet.Start(), l.process(kubelet.Wait(0))}}
		}},
		"leaving": {script: func(*load, *corev1.Pod) kubelet.Script {
			return kubelet.Script{Steps: []kubelet.Step{kubelet.Create(), kubelet.Start(), kubelet.Evict()}, Linger: 20 * time.Second}
		}},
		"left": {script: steps(kubelet.Create(), kubelet.Evict())},
		"nodeless": {script: func(l *load, pod *corev1.Pod) kubelet.Script {
			l.deleteSoon(pod)
			return kubelet.Script{Unschedulable: "no node"}
		}},
		"revoked":   {script: steps(kubelet.Create())},
		"detached":  {writes: 1, script: reject},
		"created":   {writes: 2, script: reject},
		"committed": {writes: 3, script: reject},
		"stripped":  {writes: 4, script: reject},
		"replaced":  {writes: 5, script: reject},
	}
}

// throttle holds up all that a watcher writes about a pod, and about those that replace it, past its stage.
type throttle struct {
	mu     sync.Mutex
	writes map[string]int // by the name of the first pod
	over   map[fate]int   // how many pods have come to the end of their stage
}

// answer lets a write through, or leaves it without an answer until the watcher is killed.
func (c *throttle) answer(_ http.ResponseWriter, r *http.Request) bool {
	name := podOf(r)
	first := regexp.MustCompile(`-r\d+$`).ReplaceAllString(name, "")
	words := strings.SplitN(first, "-", 3) // dag, fate, the rest
	if r.Method == http.MethodGet || len(words) < 3 {
		return false
	}
	s, ok := stages()[fate(words[1])]
	if !ok {
		return false
	}
	c.mu.Lock()
	c.writes[first]++
	passes := c.writes[first] <= s.writes
	if c.writes[first] == s.writes+1 {
		c.over[fate(words[1])]++
	}
	c.mu.Unlock()
	if !passes {
		_, _ = io.Copy(io.Discard, r.Body) // only then does the server see the connection end
		<-r.Context().Done()
	}
	return !passes
}

// podOf is the name of the pod that a request is about; empty for others.
func podOf(r *http.Request) string {
	_, path, ok := strings.Cut(r.URL.Path, "/pods")
	if !ok {
		return ""
	}
	if r.Method == http.MethodPost && path == "" {
		raw, err := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(raw))
		var pod struct{ Metadata struct{ Name string } }
		if err != nil || json.Unmarshal(raw, &pod) != nil {
			return ""
		}
		return pod.Metadata.Name
	}
	name, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	return name
}

// inEveryState is a site with so many pods in every state that a watcher can leave behind which is killed; it has been.
func inEveryState(s *site, each int, serving ...string) {
	s.t.Helper()
	c := &throttle{writes: map[string]int{}, over: map[fate]int{}}
	s.scripts = map[fate]func(*corev1.Pod) kubelet.Script{}
	for f, stage := range stages() {
		s.scripts[f] = func(pod *corev1.Pod) kubelet.Script { return stage.script(s.load, pod) }
		s.stays[f] = stage.stays
	}
	watcher := s.startWatcher(newFront(s.t, s.watcherConfig(), c.answer).config())
	s.startWebhook(serving...)
	s.untilHolding()
	for range each {
		for _, f := range slices.Sorted(maps.Keys(stages())) {
			pod, held := s.submit(f)
			require.True(s.t, held, "pod %s", f)
			if f == "revoked" {
				row, err := s.rows.Get(s.t.Context(), s.tasks[pod.Annotations["task_id"]].Key)
				require.NoError(s.t, err)
				_, err = s.airflow.Revoke(s.t.Context(), row)
				require.NoError(s.t, err)
			}
		}
	}
	eventually(s.t, "every pod is in its state", func() []string {
		c.mu.Lock()
		defer c.mu.Unlock()
		var left []string
		for f := range stages() {
			if still := f == "pending" || f == "creating" || f == "leaving"; !still && c.over[f] < each {
				left = append(left, string(f))
			}
		}
		return left
	})
	watcher.Kill()
}
