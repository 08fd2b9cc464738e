// Package bench measures what airflow-requeue costs and how fast it is, on a real API server, beside what it is to be
// compared with, in one run.
package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

// Report is all that a run has measured. Its JSON is documented in docs/performance.md.
type Report struct {
	Schema     int        `json:"schema"` // 1
	Began      time.Time  `json:"began"`
	Took       float64    `json:"took_seconds"`
	Conditions Conditions `json:"conditions"`
	Goals      []Goal     `json:"goals"`
	Series     []*Series  `json:"series"`
}

// Conditions are what the numbers depend on.
type Conditions struct {
	Revision string   `json:"revision"` // of the checkout
	Go       string   `json:"go"`
	Platform string   `json:"platform"`
	CPU      string   `json:"cpu"`
	CPUs     int      `json:"cpus"`
	Memory   string   `json:"memory"`
	Load     []string `json:"load"` // average of a minute, before and after
	Database string   `json:"database"`
	Quick    bool     `json:"quick"` // few samples: the numbers mean nothing
	Notes    []string `json:"notes"`
}

// Series are samples of one quantity under the same circumstances, in the order in which they were taken.
type Series struct {
	Name      string            `json:"name"`
	Labels    map[string]string `json:"labels"`
	Unit      string            `json:"unit"`
	N         int               `json:"n"`
	Discarded int               `json:"discarded"` // taken as well, to warm up, and left out
	Samples   []float64         `json:"samples"`
	P50       float64           `json:"p50"`
	P99       float64           `json:"p99"`
}

// labels are pairs of names and values.
func labelsOf(pairs []any) map[string]string {
	labels := map[string]string{}
	for i := 0; i+1 < len(pairs); i += 2 {
		labels[fmt.Sprint(pairs[i])] = fmt.Sprint(pairs[i+1])
	}
	return labels
}

// series is the one of a name and labels, in pairs; it is made where there is none yet.
func (r *Report) series(name, unit string, pairs ...any) *Series {
	labels := labelsOf(pairs)
	for _, s := range r.Series {
		if s.Name == name && maps.Equal(s.Labels, labels) {
			return s
		}
	}
	s := &Series{Name: name, Labels: labels, Unit: unit}
	r.Series = append(r.Series, s)
	return s
}

// find is a series with samples, or nil.
func (r *Report) find(name string, pairs ...any) *Series {
	labels := labelsOf(pairs)
	for _, s := range r.Series {
		if s.Name == name && maps.Equal(s.Labels, labels) && len(s.Samples) > 0 {
			return s
		}
	}
	return nil
}

func (s *Series) add(samples ...float64) {
	for _, v := range samples {
		s.Samples = append(s.Samples, significant(v))
	}
	s.N = len(s.Samples)
	s.P50, s.P99 = s.quantile(0.5), s.quantile(0.99)
}

// significant keeps five digits: no clock here tells more.
func significant(v float64) float64 {
	if v == 0 || math.IsNaN(v) || math.IsInf(v, 0) {
		return v
	}
	scale := math.Pow(10, 4-math.Floor(math.Log10(math.Abs(v))))
	return math.Round(v*scale) / scale
}

// quantile is the smallest sample that so large a part is not above (nearest rank).
func (s *Series) quantile(q float64) float64 {
	if len(s.Samples) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(s.Samples))
	return sorted[max(0, int(math.Ceil(q*float64(len(sorted))))-1)]
}

// mean is not a number where nothing was measured: a report may have ended early.
func (s *Series) mean() float64 {
	if s == nil {
		return math.NaN()
	}
	var sum float64
	for _, v := range s.Samples {
		sum += v
	}
	return sum / float64(len(s.Samples))
}

// conditions are those of this machine, now.
func conditions(o Options) Conditions {
	c := Conditions{Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH, CPUs: runtime.NumCPU(), Quick: o.Quick,
		CPU: lineOf("/proc/cpuinfo", "model name"), Memory: lineOf("/proc/meminfo", "MemTotal"), Load: []string{load()},
		Notes: []string{"Load generator, API server, etcd, database and the programs share these CPUs."}}
	return c
}

func lineOf(file, name string) string {
	content, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(content)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func load() string {
	content, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return ""
	}
	first, _, _ := strings.Cut(string(content), " ")
	return first
}

// Write writes the report as JSON: what is for machines in one line each, so that a change can be read.
func (r *Report) Write(w io.Writer) error {
	head := *r
	head.Series = nil
	raw, err := json.MarshalIndent(head, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding the report: %w", err)
	}
	raw = []byte(strings.TrimSuffix(string(raw), "\"series\": null\n}"))
	if _, err := fmt.Fprintf(w, "%s\"series\": [\n", raw); err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	for i, s := range r.Series {
		line, err := json.Marshal(s)
		if err != nil {
			return fmt.Errorf("encoding series %s: %w", s.Name, err)
		}
		end := ","
		if i == len(r.Series)-1 {
			end = ""
		}
		if _, err := fmt.Fprintf(w, "    %s%s\n", line, end); err != nil {
			return fmt.Errorf("writing the report: %w", err)
		}
	}
	if _, err := fmt.Fprintln(w, "  ]\n}"); err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	return nil
}
