package preflight

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// elsewhere are namespaces of every shard of two, by shard. Nothing is in them.
func elsewhere() [2]string { return [2]string{"team-a", "team-b"} }

func TestTheLeaderOfEachShardIsLookedAt(t *testing.T) {
	t.Parallel()
	i := newInstallation(t)
	i.options.Shards = 2
	i.options.Namespaces = append(i.options.Namespaces, elsewhere()[0], elsewhere()[1])
	var whose [2]string
	for _, namespace := range i.options.Namespaces {
		shard := requeue.Shard(namespace, 2)
		if whose[shard] != "" {
			whose[shard] += ", "
		}
		whose[shard] += namespace
	}
	own := requeue.Shard(i.Namespace, 2)
	whose[own] = "NS, " + elsewhere()[own]

	assert.Equal(t, Finding{"leader of shard 0", Warn, "none, for " + whose[0] + ": there is no Lease NS-0 in namespace NS", ""}, i.find("leader of shard 0"))
	i.leadFor(1, "watcher-1", "true", time.Now())
	assert.Equal(t, Finding{"leader of shard 1", OK, "watcher-1, which can decide, for " + whose[1], ""}, i.find("leader of shard 1"))
	i.leadFor(0, "watcher-0", "false", time.Now())
	assert.Equal(t, Finding{"leader of shard 0", Warn, "watcher-0, which can't read the metadata database, for " + whose[0], ""}, i.find("leader of shard 0"))
}

func TestAShardWithoutANamespaceIsTold(t *testing.T) {
	t.Parallel()
	i := newInstallation(t)
	i.options.Shards = 2
	empty := 1 - requeue.Shard(i.Namespace, 2)
	i.leadFor(empty, "watcher-0", "true", time.Now())

	check := (&checker{Options: i.options}).leaderOf(empty)
	assert.Equal(t, Finding{check, Warn, "not needed: of 1 namespace none is in this shard", ""}, i.find(check))
}

// Pods of a namespace whose shard nobody leads for are not expected to be held.
func TestWorkerPodsAreHeldWhereAWatcherLeadsForTheirNamespace(t *testing.T) {
	t.Parallel()
	i := newInstallation(t)
	i.options.Shards = 2
	i.worker("3.3.2")
	own := requeue.Shard(i.Namespace, 2)
	i.leadFor(1-own, "watcher-0", "true", time.Now())
	assert.Equal(t, Finding{"worker pods", OK, "1 pod, of Airflow 3.3.2", ""}, i.find("worker pods"))
	i.leadFor(own, "watcher-1", "true", time.Now())
	assert.Equal(t, Finding{"worker pods", Warn, "1 pod, of Airflow 3.3.2; none of the 1 that were made since a watcher leads was held", ""}, i.find("worker pods"))
}

func TestTheRightsOnTheLeasesOfAllShardsAreAskedFor(t *testing.T) {
	t.Parallel()
	i := newInstallation(t)
	i.options.Shards = 2
	i.as(rbacv1.PolicyRule{Verbs: []string{"*"}, APIGroups: []string{"", "events.k8s.io", "airflow-requeue.dev"}, Resources: []string{"*"}},
		rbacv1.PolicyRule{Verbs: []string{"*"}, APIGroups: []string{"coordination.k8s.io"}, Resources: []string{"leases"}, ResourceNames: []string{i.Namespace + "-0"}})
	assert.Equal(t, Finding{"rights", Fail, "missing: create leases.coordination.k8s.io -n NS; get,update leases.coordination.k8s.io/NS-1 -n NS", ""}, i.find("rights"))
}
