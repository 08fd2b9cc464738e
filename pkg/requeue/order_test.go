package requeue

import (
	"fmt"
	"reflect"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"
)

// pinned reports whether a case of the table turns red under other rules.
func pinned(cases []decisionCase, rules []rule) bool {
	return slices.ContainsFunc(cases, func(c decisionCase) bool {
		return !reflect.DeepEqual(c.want, decide(rules, c.given.Input, c.given.policy, c.given.now))
	})
}

func without(rules []rule, i int) []rule { return slices.Delete(slices.Clone(rules), i, i+1) }

// moved puts rule j right before rule i.
func moved(rules []rule, j, i int) []rule { return slices.Insert(without(rules, j), i, rules[j]) }

func TestRemovingAnyRuleTurnsACaseRed(t *testing.T) {
	cases := table()
	for i, r := range rules() {
		require.True(t, pinned(cases, without(rules(), i)), "row %s can go, and no case notices", r.row)
	}
}

// overlaps finds, among generated scenes, one for each pair of rules of which the first decides and the second would
// have decided too.
func overlaps(n int) map[[2]int]scene {
	found := map[[2]int]scene{}
	table := rules()
	for _, s := range scenes(1, n) {
		f := facts{Input: s.Input, pod: s.Pod, job: s.Seal.Job, now: s.now}
		f.policy, _ = s.policy.With(f.job.Tuning)
		first := -1
		for j, r := range table {
			if _, known := found[[2]int{first, j}]; known {
				continue
			}
			switch _, ok := r.decide(f); {
			case ok && first < 0:
				first = j
			case ok:
				found[[2]int{first, j}] = s
			}
		}
	}
	return found
}

// Moving a rule before one that it overlaps changes a decision; a case of the table has to notice.
func TestMovingAnyRuleBeforeOneThatItOverlapsTurnsACaseRed(t *testing.T) {
	t.Parallel()
	cases, table := table(), rules()
	found := overlaps(100_000)
	require.Greater(t, len(found), 150, "the generator has become narrow")
	for i := range table {
		for j := i + 1; j < len(table); j++ {
			s, overlap := found[[2]int{i, j}]
			if overlap && !pinned(cases, moved(table, j, i)) {
				t.Errorf("row %s can go before row %s, and no case notices; it should want what row %s decides on\n%s",
					table[j].row, table[i].row, table[i].row, full{s})
			}
		}
	}
}

// full prints a scene, in full, when a check fails: as an example for the case that is missing.
type full struct{ scene }

func (f full) String() string {
	raw, err := yaml.Marshal(f.Input)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%s\nunder %+v at %s", raw, f.policy, f.now)
}
