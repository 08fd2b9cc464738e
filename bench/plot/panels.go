package main

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
)

func panel(title, x, y string) *plot.Plot {
	p := plot.New()
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = title, x, y
	p.Legend.Top, p.Legend.Left = true, true
	p.Add(plotter.NewGrid())
	return p
}

// lines adds lines with their points, each with a name; one without points is left out.
func lines(p *plot.Plot, named ...any) error {
	var drawn []any
	for i := 0; i+1 < len(named); i += 2 {
		if points := named[i+1].(plotter.XYs); len(points) > 0 {
			drawn = append(drawn, named[i], points)
		}
	}
	return plotutil.AddLinePoints(p, drawn...)
}

// admission is the time of a CREATE for who reviews it.
func admission(r report) (*plot.Plot, error) {
	p := panel("Admission: CREATE of a pod of 5 KB", "clients at the same time", "ms")
	all := r.named("admission.create", "bytes", "5120")
	var named []any
	for _, who := range values(all, "who") {
		of := r.named("admission.create", "bytes", "5120", "who", who)
		named = append(named, who+", p50", over(of, "clients", func(s series) float64 { return s.P50 * 1e3 }))
		named = append(named, who+", p99", over(of, "clients", func(s series) float64 { return s.P99 * 1e3 }))
	}
	return p, lines(p, named...)
}

// recovery is how many of the pods are replaced after a time.
func recovery(r report) (*plot.Plot, error) {
	p := panel("Recovery of one pod", "ms since its failure was written", "part of the pods")
	p.Y.Min, p.Y.Max = 0, 1
	var named []any
	for _, s := range append(r.named("recovery.create"), r.named("recovery.replaced")...) {
		name := map[string]string{"": "one bare CREATE", "no webhook": "the same requests alone"}[s.Labels["who"]]
		if name == "" {
			name = s.Labels["who"]
		}
		named = append(named, name, distribution(s.Samples))
	}
	if len(named) > 0 {
		p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	}
	return p, plotutil.AddLines(p, named...)
}

// distribution is the part of the samples that is not above each, in ms.
func distribution(samples []float64) plotter.XYs {
	sorted := slices.Sorted(slices.Values(samples))
	points := make(plotter.XYs, len(sorted))
	for i, v := range sorted {
		points[i] = plotter.XY{X: math.Max(v*1e3, 0.01), Y: float64(i+1) / float64(len(sorted))}
	}
	return points
}

// storms is how many pods are replaced in a second, of a storm of so many.
func storms(r report) (*plot.Plot, error) {
	p := panel("Storms: pods replaced in a second", "pods that fail at once", "1/s")
	all := r.named("storm.rate")
	var named []any
	for _, who := range values(all, "who") {
		name := who
		if who == "no webhook" {
			name = "the same writes alone"
		}
		named = append(named, name, over(r.named("storm.rate", "who", who), "pods", series.mean))
	}
	if len(named) > 0 {
		p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	}
	return p, lines(p, named...)
}

// curves are how far the storms have come with time.
func curves(r report) (*plot.Plot, error) {
	p := panel("Storms: pods replaced by now", "s since the last failure", "part of the pods")
	var named []any
	for _, s := range r.named("storm.curve", "run", "1") {
		total, err := strconv.ParseFloat(s.Labels["pods"], 64)
		if err != nil {
			return nil, err
		}
		every, err := time.ParseDuration(s.Labels["every"])
		if err != nil {
			return nil, err
		}
		points := make(plotter.XYs, len(s.Samples))
		for i, count := range s.Samples {
			points[i] = plotter.XY{X: float64(i) * every.Seconds(), Y: count / total}
		}
		named = append(named, fmt.Sprintf("%s pods", s.Labels["pods"]), points)
	}
	return p, plotutil.AddLines(p, named...)
}

// memory is what the watcher takes, by pods that it tracks.
func memory(r report) (*plot.Plot, error) {
	p := panel("Memory of the watcher at rest", "tracked pods", "MB")
	megabytes := func(s series) float64 { return s.mean() / 1e6 }
	return p, lines(p, "resident", over(r.named("scale.rss"), "pods", megabytes), "live heap", over(r.named("scale.heap"), "pods", megabytes))
}

// polling is what it takes while pods run whose tasks have not begun.
func polling(r report) (*plot.Plot, error) {
	p := panel("Database: pods that run, tasks that have not begun", "pods", "1/s")
	return p, lines(p, "queries", over(r.named("poll.queries"), "pods", series.mean),
		"hundreds of rows", over(r.named("poll.rows"), "pods", func(s series) float64 { return s.mean() / 100 }))
}
