package requeue

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// decisionCase is one sentence of the table of scenarios: what was seen, and the one right outcome.
type decisionCase struct {
	name  string
	given scene
	want  Decision
}

// table is the table of scenarios, row by row, and then its section on duplicates, races and restarts.
func table() []decisionCase {
	return slices.Concat(goneCases(), replacedCases(), aliveCases(), waitingCases(), endedCases(), movedOnCases(), realCases(),
		boundCases(), requeueCases(), reasonCases(), raceCases())
}

func TestDecide(t *testing.T) {
	for _, c := range table() {
		t.Run(c.name, func(t *testing.T) {
			require.Equal(t, c.want, c.given.decide())
		})
	}
}

func TestEveryRowOfTheTableHasACase(t *testing.T) {
	covered := map[string]bool{}
	for _, c := range table() {
		covered[c.want.Row] = true
	}
	for _, r := range rules() {
		require.True(t, covered[r.row], "row %s", r.row)
	}
	require.True(t, covered["24"])
	require.Len(t, covered, len(rules())+1, "a case wants a row that the table does not have")
}

func TestTheTableIsNumberedAsScenariosAre(t *testing.T) {
	var got []string
	for _, r := range rules() {
		got = append(got, r.row)
	}
	// Row 8, detached without a replacement, is "as if just ended" and has no rule of its own; row 24 holds up what others decide.
	require.Equal(t, []string{"1", "2", "3", "4", "5", "6", "7a", "7b", "9", "10", "11", "12", "13", "14", "15", "16", "17", "18", "19",
		"20", "21", "22", "23", "25", "26", "27", "28", "29", "30", "31"}, got)
}

func TestNoTwoCasesHaveTheSameName(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range table() {
		require.False(t, seen[c.name], c.name)
		seen[c.name] = true
	}
}
