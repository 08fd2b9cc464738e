package requeue

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
)

// What the table says is so for ever: programs of different versions work on the same pods.
func TestANamespaceIsInTheSameShardForEveryProgramAndVersion(t *testing.T) {
	for _, c := range []struct {
		namespace string
		want      [5]int // of 1, 2, 3, 4 and 7
	}{
		{"", [5]int{0, 1, 1, 1, 2}},
		{"airflow", [5]int{0, 1, 2, 3, 6}},
		{"data", [5]int{0, 1, 1, 1, 1}},
		{"team-a", [5]int{0, 0, 1, 2, 2}},
		{"team-b", [5]int{0, 1, 2, 3, 4}},
		{"team-c", [5]int{0, 0, 0, 0, 6}},
		{"team-d", [5]int{0, 1, 2, 1, 6}},
		{"production", [5]int{0, 0, 1, 2, 4}},
	} {
		var got [5]int
		for i, shards := range []int{1, 2, 3, 4, 7} {
			got[i] = Shard(c.namespace, shards)
		}
		assert.Equal(t, c.want, got, "namespace %q", c.namespace)
	}
}

func TestNamespacesAreSpreadOverTheShards(t *testing.T) {
	const each = 50
	for _, pattern := range []string{"team-%d", "airflow-%03d", "%d-data-production"} {
		for shards := 2; shards <= 8; shards++ {
			var namespaces []string
			for n := range each * shards {
				namespaces = append(namespaces, fmt.Sprintf(pattern, n))
			}
			for shard := range shards {
				assert.InDelta(t, each, len(InShard(namespaces, shard, shards)), each/2, "%s: shard %d of %d", pattern, shard, shards)
			}
		}
	}
}

func TestEachNamespaceIsInOneShard(t *testing.T) {
	namespaces := []string{"team-b", "team-a", "team-d", "team-c"}
	assert.Equal(t, namespaces, InShard(namespaces, 0, 1))
	assert.Equal(t, []string{"team-a", "team-c"}, InShard(namespaces, 0, 2))
	assert.Equal(t, []string{"team-b", "team-d"}, InShard(namespaces, 1, 2))
	assert.Empty(t, InShard([]string{"team-a"}, 1, 2))
}

func TestTheFirstShardIsTheLowestThatHasANamespace(t *testing.T) {
	assert.Equal(t, 0, FirstShard([]string{"team-b", "team-a"}, 1))
	assert.Equal(t, 0, FirstShard([]string{"team-b", "team-a"}, 2))
	assert.Equal(t, 1, FirstShard([]string{"team-b"}, 2))
	assert.Equal(t, 1, FirstShard([]string{"team-b", "data", "airflow"}, 4))
	assert.Equal(t, 2, FirstShard([]string{"team-b", "team-a"}, 4))
}

func TestALeaseIsNamedByItsShardWhereThereAreSeveral(t *testing.T) {
	assert.Equal(t, "airflow-requeue", LeaseOf("airflow-requeue", 0, 1))
	assert.Equal(t, "airflow-requeue-0", LeaseOf("airflow-requeue", 0, 2))
	assert.Equal(t, "airflow-requeue-1", LeaseOf("airflow-requeue", 1, 2))
}
