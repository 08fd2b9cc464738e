package bench

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestAQuantileIsASampleThatSoManyAreNotAbove(t *testing.T) {
	s := &Series{}
	for v := 100; v > 0; v-- {
		s.add(float64(v))
	}
	assert.Equal(t, []float64{50, 99, 1, 100}, []float64{s.P50, s.P99, s.quantile(0), s.quantile(1)})
	one := &Series{}
	one.add(7)
	assert.Equal(t, []float64{7, 7}, []float64{one.P50, one.P99})
}

func TestAReportHasAllItsSamples(t *testing.T) {
	r := &Report{Schema: 1, Began: time.Date(2026, 11, 30, 0, 0, 0, 0, time.UTC), Goals: []Goal{goal("speed", "fast", true, "%d", 1)}}
	r.series("a", "s", "who", ours, "clients", 16).add(1.23456789, 0)
	r.series("a", "s", "who", ours, "clients", 16).Discarded = 3
	r.series("b", "1/s").add(12345678)
	var out bytes.Buffer
	require.NoError(t, r.Write(&out))

	var read Report
	require.NoError(t, json.Unmarshal(out.Bytes(), &read), "%s", &out)
	assert.Equal(t, r, &read)
	assert.Equal(t, &Series{Name: "a", Labels: map[string]string{"who": ours, "clients": "16"}, Unit: "s", N: 2, Discarded: 3,
		Samples: []float64{1.2346, 0}, P50: 0, P99: 1.2346}, read.find("a", "who", ours, "clients", 16))
	assert.Nil(t, read.find("a", "who", ours), "all labels count")
}

func TestGoalsAreJudgedByTheSamples(t *testing.T) {
	measured := func(mine, alone float64) *Report {
		r := &Report{}
		r.series("storm.rate", "pods/s", "who", ours, "pods", 1000).add(mine)
		r.series("storm.rate", "pods/s", "who", none, "pods", 1000).add(alone)
		return r
	}
	const what = "storm: 1000 pods, beside the same writes alone"
	assert.Equal(t, Goal{What: what, Reach: ">= 0.9 x", Measured: "0.90 x (90 of 100 pods/s)", Met: "yes"}, stormGoals(measured(90, 100))[0])
	assert.Equal(t, Goal{What: what, Reach: ">= 0.9 x", Measured: "0.89 x (89 of 100 pods/s)", Met: "no"}, stormGoals(measured(89, 100))[0])
	for _, g := range judge(&Report{}) {
		assert.Empty(t, g.Met+g.Measured, g.What)
	}
	var table bytes.Buffer
	require.NoError(t, (&Report{Goals: judge(&Report{})}).Table(&table))
	assert.Contains(t, table.String(), "| idle at 10,000 tracked pods | < 1% of a core | not measured |  |")
}
