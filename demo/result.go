package main

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/airflow-requeue/airflow-requeue/internal/scrape"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// take takes down what came of a scenario.
func (sc *scenario) take(r *record, row requeue.TaskInstance) {
	sc.got = result{pods: len(r.pods), outcomes: r.outcomes(), saw: slices.Clone(r.saw), without: slices.Clone(r.without),
		state: row.State, try: row.TryNumber, burnt: burnt(row)}
	sc.took = r.recoveries()
}

// differences says in which of its fields a result is not as wanted.
func (r result) differences(want result) []string {
	var differences []string
	for _, field := range []struct {
		name      string
		got, want any
	}{
		{"pods", r.pods, want.pods},
		{"airflow-requeue did", r.outcomes, want.outcomes},
		{"the executor saw", r.saw, want.saw},
		{"without us it would have seen", r.without, want.without},
		{"the task's state", r.state, want.state},
		{"try number", r.try, want.try},
		{"retries burnt", r.burnt, want.burnt},
	} {
		if !reflect.DeepEqual(field.got, field.want) {
			differences = append(differences, fmt.Sprintf("%s: %s, wanted: %s", field.name, words(field.got), words(field.want)))
		}
	}
	return differences
}

func words(value any) string {
	list, ok := value.([]string)
	switch {
	case !ok:
		return fmt.Sprint(value)
	case len(list) == 0:
		return nothing
	}
	return strings.Join(list, ", ")
}

// numbers are what the processes counted of themselves.
type numbers struct {
	held     int // pods at their admission
	requeues int
	writes   int // of the watcher
	queries  int // of the metadata database
	errors   int
}

func (p *play) count(ctx context.Context) (numbers, error) {
	webhook, err := scrape.Get(ctx, p.webhook)
	if err != nil {
		return numbers{}, fmt.Errorf("counting: %w", err)
	}
	watcher, err := scrape.Get(ctx, p.watcher)
	if err != nil {
		return numbers{}, fmt.Errorf("counting: %w", err)
	}
	return numbers{
		held:     int(webhook.Sum("airflow_requeue_admissions_total", `outcome="Held"`)),
		requeues: int(watcher.Sum("airflow_requeue_requeues_total")),
		writes:   int(watcher.Sum("airflow_requeue_writes_total")),
		queries:  int(watcher.Sum("airflow_requeue_database_query_seconds_count")),
		errors:   int(watcher.Sum("airflow_requeue_errors_total")),
	}, nil
}

// judge fails with all that came out otherwise.
func (p *play) judge(n numbers) error {
	p.mu.Lock()
	otherwise := slices.Clone(p.problems)
	p.mu.Unlock()
	replaced := 0
	for _, sc := range p.scenarios {
		for _, difference := range sc.got.differences(sc.want) {
			otherwise = append(otherwise, sc.name+": "+difference)
		}
		replaced += sc.want.pods - 1
	}
	for _, number := range []struct {
		name      string
		got, want int
	}{
		{"pods held at their admission", n.held, len(p.scenarios)},
		{"replacements that the watcher counted", n.requeues, replaced},
		{"errors that the watcher counted", n.errors, 0},
	} {
		if number.got != number.want {
			otherwise = append(otherwise, fmt.Sprintf("%s: %d, wanted: %d", number.name, number.got, number.want))
		}
	}
	if len(otherwise) > 0 {
		return fmt.Errorf("this came out otherwise:\n  %s", strings.Join(otherwise, "\n  "))
	}
	return nil
}

// table shows what came of all scenarios.
func table(s screen, scenarios []scenario) {
	row := func(as style, cells ...string) {
		widths := []int{11, -4, 29, 9, 9, 19, -7, -8}
		var row []cell
		for i, text := range cells {
			row = append(row, cell{text, widths[i], as})
			if as == plain && (i == 3 || i == 4) {
				row[i].style = sightStyle(text)
			}
		}
		s.row(row...)
	}
	s.printf("\n")
	row(bold, "", "", "", "executor", "without", "", "retries", "")
	row(bold, "scenario", "pods", "airflow-requeue", "saw", "us", "the task", "burnt", "recovery")
	for _, sc := range scenarios {
		var took []string
		for _, d := range sc.took {
			took = append(took, fmt.Sprintf("%d ms", d.Milliseconds()))
		}
		row(plain, sc.name, fmt.Sprint(sc.got.pods), sc.got.inShort(), sight(sc.got.saw), sight(sc.got.without),
			fmt.Sprintf("%s, try %d", sc.got.state, sc.got.try), fmt.Sprint(sc.got.burnt), strings.Join(took, " "))
	}
}

// inShort is what counts most of what airflow-requeue did: that a replaced pod was released too goes without saying.
func (r result) inShort() string {
	for _, did := range []string{"reported", "replaced"} {
		for _, text := range r.outcomes {
			if strings.HasPrefix(text, did) {
				return text
			}
		}
	}
	return words(r.outcomes)
}

// sight is what a watch of the executor made of a task, without the pod's number.
func sight(seen []string) string {
	if len(seen) == 0 {
		return nothing
	}
	last := strings.Fields(seen[len(seen)-1])
	return last[len(last)-1]
}

// sum sums up.
func sum(s screen, scenarios []scenario, n numbers, elapsed time.Duration) {
	var took []time.Duration
	burnt, without, stuck := 0, 0, 0
	for _, sc := range scenarios {
		took = append(took, sc.took...)
		burnt += sc.got.burnt
		switch sight(sc.got.without) {
		case failed:
			without++
		case nothing:
			stuck++
		}
	}
	slices.Sort(took)
	s.printf("\n")
	if len(took) > 0 {
		s.printf("%d pods replaced. From a pod's end to its replacement's being free to run: median %d ms, longest %d ms.\n",
			len(took), took[len(took)/2].Milliseconds(), took[len(took)-1].Milliseconds())
	}
	s.printf("Of %d tasks the executor saw %d fail. Without airflow-requeue: %d, and %d would have waited ten minutes.\n",
		len(scenarios), burnt, without, stuck)
	s.printf("The webhook held %d pods. The watcher made %d writes and %d queries. All in %.0f s.\n",
		n.held, n.writes, n.queries, elapsed.Seconds())
}
