package scenarios

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/airflow-requeue/airflow-requeue/internal/programs"
)

// root is the checkout, seen from this folder.
const root = "../.."

// plantedPatience is how long a case on planted programs waits for what may never come.
const plantedPatience = 15 * time.Second

// edit is a piece of a fault.
type edit = programs.Edit

// plant builds the program that has the fault; the other is as it ships.
func plant(t *testing.T, fault []edit) programs.Built {
	t.Helper()
	dir := t.TempDir()
	faulty := "watcher"
	if strings.HasPrefix(fault[0][0], "pkg/mutate/") {
		faulty = "webhook"
	}
	built, err := programs.Build(t.Context(), dir, programs.Overlay(t, root, dir, fault), faulty)
	require.NoError(t, err)
	all := maps.Clone(shared.Built)
	maps.Copy(all, built)
	return all
}

func TestEveryRowOfTheTableHasAFaultToPlant(t *testing.T) {
	t.Parallel()
	docs := documented(t)
	assert.ElementsMatch(t, docs, slices.Collect(maps.Keys(faults())), "a fault for each row, and no other")
	for row, fault := range faults() {
		programs.Overlay(t, root, t.TempDir(), fault)
		assert.NotEmpty(t, fault, row)
	}
}

// TestAPlantedFaultIsCaughtByItsRow plays each row on programs that do it wrong: at least one of its cases must fail.
func TestAPlantedFaultIsCaughtByItsRow(t *testing.T) {
	if !*planted {
		t.Skip("it builds the programs once for each row: run make planted")
	}
	t.Parallel()
	places := make(chan struct{}, 4)
	for row, fault := range faults() {
		t.Run(row, func(t *testing.T) {
			t.Parallel()
			places <- struct{}{}
			defer func() { <-places }()
			built := plant(t, fault)
			cases := slices.DeleteFunc(slices.Concat(rows(), promises()), func(c scenario) bool { return c.row != row })
			var common *installation
			if slices.ContainsFunc(cases, func(c scenario) bool { return !c.isAlone() }) {
				common = install(t, shared.Servers, built, nil, nil)
			}
			var played sync.WaitGroup
			var mu sync.Mutex
			var caught []string
			for _, c := range cases {
				played.Go(func() {
					tried, begun := newTrial(t), false
					tried.run(func() {
						i := common
						if c.isAlone() {
							i = c.install(tried, built)
						}
						begun = true
						c.on(tried, i, plantedPatience)
					})
					assert.True(t, begun, "%s: %s", c.name(), tried.said())
					if tried.Failed() {
						mu.Lock()
						defer mu.Unlock()
						caught = append(caught, c.name()+": "+tried.said())
					}
				})
			}
			played.Wait()
			require.NotEmpty(t, caught, "no case of row %s failed with its fault", row)
			t.Logf("caught by %d of the row's cases: %s", len(caught), strings.Join(caught, "\n"))
		})
	}
}
