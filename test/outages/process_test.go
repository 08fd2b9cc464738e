package outages

import (
	"encoding/json"
	"io"
	"maps"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/airflow-requeue/airflow-requeue/internal/programs"
)

// process is a run of one of the programs.
type process struct {
	*programs.Process
	t       *testing.T
	program string
	args    []string
	metrics string // address of /metrics
	before  int    // how much of the log is of no interest: see anew
}

// start runs one of the programs until the test ends it, or ends.
func start(t *testing.T, program string, args ...string) *process {
	t.Helper()
	p := &process{t: t, program: program, args: args, metrics: programs.FreeAddress(t)}
	if args[0] != "release" {
		args = append(args, "--metrics-listen="+p.metrics)
	}
	p.Process = programs.Start(t, &programs.Log{To: t.Output()}, shared.Built[program], append(args, "--log-format=json")...)
	return p
}

// again starts a program that has ended once more, as it was started before.
func again(p *process) *process { return start(p.t, p.program, p.args...) }

// metric is the sum of a metric's samples that have all the labels, each as `name="value"`; NaN while it can't be read.
func (p *process) metric(name string, labels ...string) float64 {
	response, err := http.Get("http://" + p.metrics + "/metrics")
	if err != nil {
		return math.NaN()
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return math.NaN()
	}
	sum := 0.0
	for line := range strings.Lines(string(body)) {
		sample, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		have, _, _ := strings.Cut(sample, "{")
		if !ok || have != name || slices.ContainsFunc(labels, func(l string) bool { return !strings.Contains(sample, l) }) {
			continue
		}
		n, err := strconv.ParseFloat(value, 64)
		if !assert.NoError(p.t, err) {
			return math.NaN()
		}
		sum += n
	}
	return sum
}

// anew has only lines that are logged from now on count: what a program says while it starts depends on how long the
// others take to start.
func (p *process) anew() { p.before = len(p.Log.String()) }

// messages counts the lines by their message, and by the state where they name one; a line that is no record of the
// logger's counts as it is.
func (p *process) messages() map[string]int {
	n := map[string]int{}
	for line := range strings.Lines(p.Log.String()[p.before:]) {
		var record struct{ Msg, State string }
		if json.Unmarshal([]byte(line), &record) != nil {
			record.Msg = strings.TrimSpace(line)
		}
		if record.State != "" {
			record.Msg += ": " + record.State
		}
		n[record.Msg]++
	}
	return n
}

// aboutPods are the messages of which each pod has its own.
func aboutPods() []string {
	return []string{"pod replaced", "pod reported as failed", "pod deleted", "pod discarded", "pod let go", "pod released"}
}

// sparing says that the process has logged what changed and not what it tried: no message more often than twice, but
// for those of which each pod has its own.
func (p *process) sparing() {
	p.t.Helper()
	p.spares(p.t)
}

func (p *process) spares(t *testing.T) {
	t.Helper()
	messages := p.messages()
	for _, m := range slices.Sorted(maps.Keys(messages)) {
		if !slices.Contains(aboutPods(), m) {
			assert.LessOrEqual(t, messages[m], 2, "lines %q", m)
		}
	}
}

// logged says how often the process has logged each of the messages.
func (p *process) logged(times int, messages ...string) {
	p.t.Helper()
	all := p.messages()
	for _, m := range messages {
		assert.Equal(p.t, times, all[m], "lines %q", m)
	}
}
