package outages

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/airflow-requeue/airflow-requeue/internal/executor"
	"github.com/airflow-requeue/airflow-requeue/internal/programs"
	"github.com/airflow-requeue/airflow-requeue/internal/world"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// part is Airflow at work in the namespace of one of two shards.
type part struct {
	*load
	shard int
	unfit string // a pod that is held for as long as a watcher leads
	stop  func() // ends the work
}

// newShards is an installation whose namespaces are in two shards.
func newShards(t *testing.T) (s *site, parts [2]*part) {
	t.Helper()
	s = &site{Site: programs.NewSite(world.New(t, shared.Servers.Config(), ddl), shared.Servers), t: t, timeout: 30}
	for len(s.Others) == 0 {
		if other := world.Namespace(t, s.Client); requeue.Shard(other, 2) != requeue.Shard(s.Namespace, 2) {
			s.Others = []string{other}
		}
	}
	airflow := s.SchedulerAs(1)
	for _, namespace := range s.Namespaces() {
		airflow.Namespace = namespace
		w := &world.World{T: t, Config: s.Config, Client: s.Client, Namespace: namespace, DB: s.DB, Sealer: s.Sealer, KeysDir: s.KeysDir}
		p := &part{load: newLoad(t, w, airflow, s.DB), shard: requeue.Shard(namespace, 2)}
		p.queueing = func(task executor.Task) executor.Task {
			task.DagID = "dag" + strconv.Itoa(p.shard) // one database has the rows of all
			return task
		}
		parts[p.shard] = p
	}
	return s, parts
}

// startShard runs the watcher of one of two shards.
func (s *site) startShard(shard int) *process {
	s.t.Helper()
	return s.startWatcher(s.watcherConfig(), "--shards=2", "--shard="+strconv.Itoa(shard))
}

func (p *part) label() string { return `shard="` + strconv.Itoa(p.shard) + `"` }

func (p *part) untilHolding() {
	p.t.Helper()
	until(p.t, "a pod of shard "+strconv.Itoa(p.shard)+" is held", func() bool { return p.submitted(runs) })
}

func (p *part) untilNotHolding() {
	p.t.Helper()
	until(p.t, "a pod of shard "+strconv.Itoa(p.shard)+" is not held", func() bool { return !p.submitted(runs) })
}

// begin has pods of a usual day submitted, beside one that is held for long.
func (p *part) begin() {
	p.t.Helper()
	p.untilHolding()
	pod, held := p.submit(unfit)
	assert.True(p.t, held)
	p.unfit = pod.Name
	p.stop = p.work(time.Second/2, day()...)
	p.untilReplaced(time.Time{})
}

// holdsLong reports whether the pod that is held for long is.
func (p *part) holdsLong() bool { return requeue.Held(p.world.Pods()[p.unfit]) }

// end stops the work and waits for all of it to be settled: nothing was lost or doubled. What is still held for long is
// deleted, and replaced by a pod that runs.
func (p *part) end() {
	p.t.Helper()
	p.stop()
	if p.holdsLong() {
		assert.NoError(p.t, p.airflow.Delete(p.t.Context(), p.unfit))
		until(p.t, "its replacement has run", func() bool {
			return p.count(func(e *entry) bool { return e.pod == p.unfit && e.succeeded }) == 1
		})
	}
	close(p.over)
	p.settles()
}

// settled are the namespaces of the pods that a process says it has done something about.
func (p *process) settled() []string {
	var namespaces []string
	for line := range strings.Lines(p.Log.String()) {
		var record struct{ Msg, Namespace string }
		if json.Unmarshal([]byte(line), &record) == nil && slices.Contains(aboutPods(), record.Msg) && !slices.Contains(namespaces, record.Namespace) {
			namespaces = append(namespaces, record.Namespace)
		}
	}
	return namespaces
}

func TestTheEndOfAShardsWatcherCostsThePodsOfItsNamespacesAndNoOthers(t *testing.T) {
	t.Parallel()
	s, parts := newShards(t)
	watchers := [2]*process{s.startShard(0), s.startShard(1)}
	webhook := s.startWebhook("--shards=2", "--lease-max-age=20s", "--no-leader-release-after=30s")
	for _, p := range parts {
		p.begin()
	}
	for shard, p := range parts {
		assert.Equal(t, []string{p.world.Namespace}, watchers[shard].settled(), "each settles its own")
		assert.InDelta(t, 1, watchers[shard].metric("airflow_requeue_leader", p.label()), 0)
		assert.InDelta(t, 1, webhook.metric("airflow_requeue_leader_ready", p.label()), 0)
	}

	left, stays := parts[0], parts[1]
	watchers[0].Kill()
	killed := time.Now()
	until(t, "the webhook sees it", func() bool { return webhook.metric("airflow_requeue_leader_ready", left.label()) == 0 })
	unheld := time.Now()
	left.untilNotHolding()
	until(t, "its holds are lifted", func() bool { return webhook.metric("airflow_requeue_sweeps_total", left.label(), `result="done"`) >= 1 })
	assert.GreaterOrEqual(t, time.Since(killed), 29*time.Second, "not before its time")
	assert.Empty(t, left.trackedNow())
	assert.False(t, left.holdsLong())
	assert.True(t, stays.holdsLong(), "the other's holds stay")
	assert.True(t, stays.submitted(runs), "and its pods are held")
	stays.untilReplaced(unheld)
	assert.Zero(t, webhook.metric("airflow_requeue_sweeps_total", stays.label()))
	assert.InDelta(t, 1, webhook.metric("airflow_requeue_leader_ready", stays.label()), 0)

	returned := time.Now()
	watchers[0] = s.startShard(0)
	left.untilHolding()
	again := time.Now()
	left.untilReplaced(again)
	for _, p := range parts {
		p.end()
	}
	assert.Zero(t, left.count(func(e *entry) bool { return e.held && e.at.After(unheld) && e.made.Before(returned) }))
	left.unseen(func(e *entry) bool { return took(e) && e.at.After(again) })
	stays.unseen(took)
	stays.unseen(func(e *entry) bool { return e.pod == stays.unfit })
	assert.Zero(t, stays.count(func(e *entry) bool { return !e.held && e.at.After(killed) }), "each was held")
	for shard, p := range parts {
		assert.Equal(t, []string{p.world.Namespace}, watchers[shard].settled())
	}
	assert.Equal(t, []string{left.world.Namespace}, webhook.settled(), "it lifts no holds of a shard with a leader")
}

func TestTheNumberOfShardsMayChangeWithPodsInFlight(t *testing.T) {
	t.Parallel()
	s, parts := newShards(t)
	one := s.startWatcher(s.watcherConfig())
	webhook := s.startWebhook("--lease-max-age=20s", "--no-leader-release-after=30s")
	for _, p := range parts {
		p.begin()
	}
	untilReplaced := func() {
		t.Helper()
		since := time.Now()
		for _, p := range parts {
			p.untilReplaced(since)
		}
	}

	// From one to two: for a while two lead for each namespace.
	watchers := [2]*process{s.startShard(0), s.startShard(1)}
	for shard, p := range parts {
		until(t, "the watcher of shard "+strconv.Itoa(shard)+" leads", func() bool { return watchers[shard].metric("airflow_requeue_leader", p.label()) == 1 })
	}
	assert.InDelta(t, 1, one.metric("airflow_requeue_leader"), 0, "and so does the one for all")
	untilReplaced()
	webhook.Stop()
	webhook = start(t, "webhook", append(slices.Clone(webhook.args), "--shards=2")...)
	for _, p := range parts {
		p.untilHolding()
	}
	one.Stop()
	untilReplaced()
	assert.Zero(t, webhook.metric("airflow_requeue_sweeps_total"))
	for shard, p := range parts {
		assert.True(t, p.holdsLong(), "it was held all the time")
		assert.Equal(t, []string{p.world.Namespace}, watchers[shard].settled())
	}

	// From two to one: for a while nobody leads for any.
	for _, w := range watchers {
		w.Kill()
	}
	webhook.Stop()
	webhook = start(t, "webhook", append(slices.Clone(webhook.args), "--shards=1")...)
	until(t, "all holds are lifted", func() bool { return webhook.metric("airflow_requeue_sweeps_total", `shard="0"`, `result="done"`) >= 1 })
	for _, p := range parts {
		assert.False(t, p.holdsLong())
		assert.False(t, p.submitted(runs))
		assert.Empty(t, p.trackedNow())
	}
	s.startWatcher(s.watcherConfig())
	for _, p := range parts {
		p.untilHolding()
	}
	untilReplaced()
	for _, p := range parts {
		p.end()
	}
}
