package main

import (
	"cmp"
	"slices"
	"strconv"

	"gonum.org/v1/plot/plotter"
)

// report is what is drawn of bench.json; docs/performance.md documents all of it.
type report struct {
	Series []series `json:"series"`
}

type series struct {
	Name    string            `json:"name"`
	Labels  map[string]string `json:"labels"`
	Samples []float64         `json:"samples"`
	P50     float64           `json:"p50"`
	P99     float64           `json:"p99"`
}

func (s series) mean() float64 {
	var sum float64
	for _, v := range s.Samples {
		sum += v
	}
	return sum / float64(len(s.Samples))
}

// named are the series of a name whose labels are as in the pairs given.
func (r report) named(name string, pairs ...string) []series {
	var found []series
next:
	for _, s := range r.Series {
		if s.Name != name || len(s.Samples) == 0 {
			continue
		}
		for i := 0; i+1 < len(pairs); i += 2 {
			if s.Labels[pairs[i]] != pairs[i+1] {
				continue next
			}
		}
		found = append(found, s)
	}
	return found
}

// values are the values of a label, in the order of their first sight.
func values(all []series, label string) []string {
	var found []string
	for _, s := range all {
		if !slices.Contains(found, s.Labels[label]) {
			found = append(found, s.Labels[label])
		}
	}
	return found
}

// over are points over a label that is a number: y is of each series.
func over(all []series, label string, y func(series) float64) plotter.XYs {
	var points plotter.XYs
	for _, s := range all {
		if x, err := strconv.ParseFloat(s.Labels[label], 64); err == nil {
			points = append(points, plotter.XY{X: x, Y: y(s)})
		}
	}
	slices.SortFunc(points, func(a, b plotter.XY) int { return cmp.Compare(a.X, b.X) })
	return points
}
