package bench

import "fmt"

// Goal is a line of the table: what is to be reached, and what was.
type Goal struct {
	What     string `json:"what"`
	Reach    string `json:"reach"`
	Measured string `json:"measured"`
	Met      string `json:"met"` // yes, no, or empty where it was not measured
}

// goal makes a line of one that is met by a number that is not above, or not below, a bound.
func goal(what, reach string, met bool, format string, args ...any) Goal {
	answer := map[bool]string{true: "yes", false: "no"}[met]
	return Goal{What: what, Reach: reach, Measured: fmt.Sprintf(format, args...), Met: answer}
}

func unmeasured(what, reach string) Goal { return Goal{What: what, Reach: reach} }

// judge holds a report against the goals.
func judge(r *Report) []Goal {
	var goals []Goal
	for _, of := range []func(*Report) []Goal{admissionGoals, recoveryGoals, stormGoals, costGoals, memoryGoals} {
		goals = append(goals, of(r)...)
	}
	return goals
}

func admissionGoals(r *Report) []Goal {
	var goals []Goal
	for _, size := range []int{small, large} {
		for _, clients := range []int{1, 16, 64} {
			what := fmt.Sprintf("admission: CREATE of %s by %s, beside an empty webhook", kilobytes(size), many(clients))
			const reach = "p50, p99 <= 1.25 x"
			of := func(who string) *Series {
				return r.find("admission.create", "who", who, "bytes", size, "clients", clients)
			}
			mine, beside := of(ours), of(empty)
			if mine == nil || beside == nil {
				goals = append(goals, unmeasured(what, reach))
				continue
			}
			p50, p99 := mine.P50/beside.P50, mine.P99/beside.P99
			line := goal(what, reach, p50 <= 1.25 && p99 <= 1.25, "%.2f x, %.2f x (%.1f, %.1f ms)", p50, p99, mine.P50*1e3, mine.P99*1e3)
			if s := of(patching); s != nil {
				line.Measured += fmt.Sprintf("; as large a patch without our work: %.2f x, %.2f x", s.P50/beside.P50, s.P99/beside.P99)
			}
			goals = append(goals, line)
		}
		limit := map[int]float64{small: 2e-3, large: 10e-3}[size]
		what, reach := "admission: handler, "+kilobytes(size), fmt.Sprintf("p99 < %.0f ms", limit*1e3)
		if s := r.find("admission.handler", "who", ours, "bytes", size); s != nil {
			line := goal(what, reach, s.P99 < limit, "%.2f ms (p50 %.2f ms)", s.P99*1e3, s.P50*1e3)
			if beside := r.find("admission.handler", "who", empty, "bytes", size); beside != nil {
				line.Measured += fmt.Sprintf("; the empty webhook: %.2f ms (p50 %.2f ms)", beside.P99*1e3, beside.P50*1e3)
			}
			goals = append(goals, line)
		} else {
			goals = append(goals, unmeasured(what, reach))
		}
	}
	return goals
}

func recoveryGoals(r *Report) []Goal {
	const what, reach = "recovery of one pod, beside one bare CREATE", "p50 <= 7 x, p99 <= 14 x"
	mine, create := r.find("recovery.replaced", "who", ours), r.find("recovery.create")
	if mine == nil || create == nil {
		return []Goal{unmeasured(what, reach)}
	}
	p50, p99 := mine.P50/create.P50, mine.P99/create.P99
	line := goal(what, reach, p50 <= 7 && p99 <= 14, "%.1f x, %.1f x (%.1f, %.1f ms)", p50, p99, mine.P50*1e3, mine.P99*1e3)
	for _, s := range r.Series {
		switch who := s.Labels["who"]; {
		case s.Name != "recovery.replaced" || who == ours || s.N == 0:
		case who == none:
			line.Measured += fmt.Sprintf("; the same requests alone: %.1f x, %.1f x", s.P50/create.P50, s.P99/create.P99)
		default:
			line.Measured += fmt.Sprintf("; %s: %.0f, %.0f ms", who, s.P50*1e3, s.P99*1e3)
		}
	}
	return []Goal{line}
}

func stormGoals(r *Report) []Goal {
	var goals []Goal
	for _, pods := range []int{1000, 5000} {
		what := fmt.Sprintf("storm: %d pods, beside the same writes alone", pods)
		const reach = ">= 0.9 x"
		mine, limit := r.find("storm.rate", "who", ours, "pods", pods), r.find("storm.rate", "who", none, "pods", pods)
		if mine == nil || limit == nil {
			goals = append(goals, unmeasured(what, reach))
			continue
		}
		ratio := mine.mean() / limit.mean()
		line := goal(what, reach, ratio >= 0.9, "%.2f x (%.0f of %.0f pods/s)", ratio, mine.mean(), limit.mean())
		for _, s := range r.Series {
			if who := s.Labels["who"]; s.Name == "storm.rate" && who != ours && who != none && s.N > 0 && pods == 1000 {
				line.Measured += fmt.Sprintf("; %s, %s pods: %.1f pods/s", who, s.Labels["pods"], s.mean())
			}
		}
		goals = append(goals, line)
	}
	return goals
}

func costGoals(r *Report) []Goal {
	goals := []Goal{unmeasured("a task that goes well", "one PATCH, no GET"), unmeasured("database: pods asked for in a query", "500 where there are as many, at rest none")}
	patch := r.find("healthy.requests", "what", "PATCH pods")
	if patch != nil {
		get, events := 0.0, 0.0
		if s := r.find("healthy.requests", "what", "GET pods"); s != nil {
			get = s.mean()
		}
		if s := r.find("healthy.requests", "what", "POST events"); s != nil {
			events = s.mean()
		}
		goals[0] = goal(goals[0].What, goals[0].Reach, patch.mean() <= 1 && get == 0 && events == 0, "%.2f PATCH, %.2f GET, %.2f Events, %.2f of a query",
			patch.mean(), get, events, r.find("healthy.queries").mean())
	}
	for _, pods := range []int{1000, 10000} {
		asked, rows, rest := r.find("poll.queries", "pods", pods), r.find("poll.rows", "pods", pods), r.find("scale.queries", "pods", pods)
		if asked == nil || rows == nil || rest == nil {
			continue
		}
		each, atRest := rows.mean()/asked.mean(), 0.0
		if rest.Samples[0] > 0 {
			atRest = rest.mean()
		}
		goals[1] = goal(goals[1].What, goals[1].Reach, each >= 400 && atRest == 0, "%.0f at %d running pods (%.1f queries/s); %.1f queries/s at rest",
			each, pods, asked.mean(), atRest)
	}
	return goals
}

func memoryGoals(r *Report) []Goal {
	goals := []Goal{unmeasured("memory for a tracked pod, from 1,000 on", "<= 4 KiB, a straight line"), unmeasured("idle at 10,000 tracked pods", "< 1% of a core")}
	if cpu := r.find("scale.cpu", "pods", 10000); cpu != nil {
		goals[1] = goal(goals[1].What, goals[1].Reach, cpu.mean() < 0.01, "%.2f%%", cpu.mean()*100)
	}
	bare, first := r.find("scale.rss", "pods", 0), r.find("scale.rss", "pods", 1000)
	if bare == nil || first == nil {
		return goals
	}
	// The line begins at 1,000: what it takes to work at all, for however few pods, is no pod's.
	measured, met := fmt.Sprintf("the first 1,000 take %.1f MiB", (first.mean()-bare.mean())/(1<<20)), true
	for _, pods := range []int{10000, 100000} {
		rss, heap := r.find("scale.rss", "pods", pods), r.find("scale.heap", "pods", pods)
		if rss == nil || heap == nil {
			continue
		}
		each := (rss.mean() - first.mean()) / float64(pods-1000) / 1024
		met = met && each <= 4
		measured += fmt.Sprintf("; each up to %d: %.1f KiB resident, %.1f in the live heap", pods, each,
			(heap.mean()-r.find("scale.heap", "pods", 1000).mean())/float64(pods-1000)/1024)
	}
	goals[0] = goal(goals[0].What, goals[0].Reach, met, "%s", measured)
	return goals
}
