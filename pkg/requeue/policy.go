package requeue

import (
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Unlimited as MaxRetries never runs out.
const Unlimited = -1

// Policy tunes decisions: the operator's flags, and over them the annotations of the pod.
type Policy struct {
	MaxRetries      int           // replacements per queueing; 0 off, Unlimited
	ExcludedReasons []string      // container reasons that are real failures
	Backoff         time.Duration // before the second replacement, doubled for each after it up to MaxBackoff
	ImagePullGrace  time.Duration // how long an image pull may fail
	StartDeadline   time.Duration // how long a pod may be Pending; 0 for ever
	AvoidFailedNode bool          // prefer another node for the replacement

	// The operator's alone.

	// MaxRetriesCap is the most that a pod's own tuning may have; Unlimited: no cap.
	MaxRetriesCap int
	// BackoffFloor is the least wait before the second replacement and each after it, at most MaxBackoff; 0 for none.
	BackoffFloor time.Duration
	// ClockSkew is how far the clocks of Airflow's machines and the API server's may be apart.
	ClockSkew time.Duration
	// TaskQueuedTimeout is Airflow's [scheduler] task_queued_timeout, at most.
	TaskQueuedTimeout time.Duration
}

// MaxBackoff bounds the wait before a replacement.
const MaxBackoff = 2 * time.Minute

// DefaultPolicy is what holds where neither a flag nor an annotation says otherwise.
func DefaultPolicy() Policy {
	return Policy{
		MaxRetries:        1,
		ExcludedReasons:   []string{"Error"},
		Backoff:           5 * time.Second,
		ImagePullGrace:    2 * time.Minute,
		AvoidFailedNode:   true,
		MaxRetriesCap:     Unlimited,
		ClockSkew:         10 * time.Second,
		TaskQueuedTimeout: 10 * time.Minute,
	}
}

func tuningAnnotations() []string {
	return []string{AnnotationMaxRetries, AnnotationExcludedReasons, AnnotationBackoff, AnnotationImagePullGrace,
		AnnotationStartDeadline, AnnotationAvoidFailedNode}
}

// Allows reports whether the cap lets a pod have as many replacements.
func (p Policy) Allows(maxRetries int) bool {
	return p.MaxRetriesCap == Unlimited || maxRetries != Unlimited && maxRetries <= p.MaxRetriesCap
}

// With returns the policy with a pod's annotations over it, within the operator's bounds. Every value that can't be read
// leaves the policy as it was; it gives a warning that says what would be right, as does one that is out of bounds.
func (p Policy) With(annotations map[string]string) (Policy, []string) {
	var warnings []string
	warn := func(name, want, used string) {
		warnings = append(warnings, fmt.Sprintf("annotation %s: %.40q is not %s; using %s", name, annotations[name], want, used))
	}
	duration := func(name string, field *time.Duration) {
		v, ok := annotations[name]
		if !ok {
			return
		}
		d, err := time.ParseDuration(strings.TrimSpace(v))
		if err != nil || d < 0 {
			warn(name, `a duration such as "90s" or "2m"`, field.String())
			return
		}
		*field = d
	}
	if v, ok := annotations[AnnotationMaxRetries]; ok {
		if n, err := strconv.Atoi(strings.TrimSpace(v)); err != nil || n < Unlimited {
			warn(AnnotationMaxRetries, "a whole number, 0 for off or -1 for unlimited", strconv.Itoa(p.MaxRetries))
		} else if p.MaxRetries = n; !p.Allows(n) {
			p.MaxRetries = p.MaxRetriesCap
			warnings = append(warnings, fmt.Sprintf("annotation %s: %d is more than the operator allows; using %d", AnnotationMaxRetries, n, p.MaxRetries))
		}
	}
	if v, ok := annotations[AnnotationExcludedReasons]; ok {
		if reasons, ok := parseReasons(v); !ok {
			warn(AnnotationExcludedReasons, `a comma-separated list of reasons such as "Error,OOMKilled"`, strings.Join(p.ExcludedReasons, ","))
		} else {
			p.ExcludedReasons = reasons
		}
	}
	duration(AnnotationBackoff, &p.Backoff)
	if _, ok := annotations[AnnotationBackoff]; ok && p.Backoff < p.BackoffFloor {
		warnings = append(warnings, fmt.Sprintf("annotation %s: %s is less than the operator allows; no wait is shorter than %s",
			AnnotationBackoff, p.Backoff, p.BackoffFloor))
	}
	duration(AnnotationImagePullGrace, &p.ImagePullGrace)
	duration(AnnotationStartDeadline, &p.StartDeadline)
	if v, ok := annotations[AnnotationAvoidFailedNode]; ok {
		if b, err := strconv.ParseBool(strings.ToLower(strings.TrimSpace(v))); err != nil {
			warn(AnnotationAvoidFailedNode, `"true" or "false"`, strconv.FormatBool(p.AvoidFailedNode))
		} else {
			p.AvoidFailedNode = b
		}
	}
	return p, warnings
}

// parseReasons reads "Error, OOMKilled"; empty means that no reason is excluded. Container reasons are CamelCase words.
func parseReasons(v string) ([]string, bool) {
	reasons := []string{}
	if strings.TrimSpace(v) == "" {
		return reasons, true
	}
	for r := range strings.SplitSeq(v, ",") {
		r = strings.TrimSpace(r)
		if r == "" || strings.ContainsFunc(r, func(c rune) bool {
			return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9')
		}) {
			return nil, false
		}
		if !slices.Contains(reasons, r) {
			reasons = append(reasons, r)
		}
	}
	return reasons, true
}

// BackoffBefore is the wait before the replacement of the given attempt (1 is the first): none, then Backoff, doubled
// each time up to MaxBackoff. Up to a fifth is taken off, by uid, so that pods that failed together come back apart; what
// is left is never below BackoffFloor.
func (p Policy) BackoffBefore(attempt int, uid string) time.Duration {
	floor := min(max(p.BackoffFloor, 0), MaxBackoff)
	if attempt <= 1 || p.Backoff <= 0 && floor == 0 {
		return 0
	}
	d := min(max(p.Backoff, 0), MaxBackoff)
	for i := 2; i < attempt && 0 < d && d < MaxBackoff; i++ {
		d = min(2*d, MaxBackoff)
	}
	d = max(d, min(floor+floor/4, MaxBackoff)) // room for what is taken off, above the floor
	h := fnv.New32a()
	_, _ = h.Write([]byte(uid)) // never fails
	return max(d-d/5*time.Duration(h.Sum32()%1000)/1000, floor)
}
