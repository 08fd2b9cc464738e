package requeue

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestTheDefaults(t *testing.T) {
	require.Equal(t, Policy{MaxRetries: 1, ExcludedReasons: []string{"Error"}, Backoff: 5 * time.Second, ImagePullGrace: 2 * time.Minute,
		StartDeadline: 0, AvoidFailedNode: true, MaxRetriesCap: Unlimited, BackoffFloor: 0, ClockSkew: 10 * time.Second, TaskQueuedTimeout: 10 * time.Minute}, DefaultPolicy())
}

func TestAPodsTuningGoesOverThePolicy(t *testing.T) {
	const prefix = "airflow-requeue.dev/"
	for _, c := range []struct {
		name, annotation, value string
		want                    func(*Policy)
	}{
		{"max-retries may be raised", "max-retries", "3", func(p *Policy) { p.MaxRetries = 3 }},
		{"max-retries 0 is off", "max-retries", "0", func(p *Policy) { p.MaxRetries = 0 }},
		{"max-retries -1 is unlimited", "max-retries", "-1", func(p *Policy) { p.MaxRetries = Unlimited }},
		{"spaces around a number do no harm", "max-retries", " 2\n", func(p *Policy) { p.MaxRetries = 2 }},
		{"one reason is excluded", "excluded-container-reasons", "OOMKilled", func(p *Policy) { p.ExcludedReasons = []string{"OOMKilled"} }},
		{"several reasons are excluded, each once", "excluded-container-reasons", "Error, OOMKilled,Error",
			func(p *Policy) { p.ExcludedReasons = []string{"Error", "OOMKilled"} }},
		{"a reason has letters and digits", "excluded-container-reasons", "azAZ09", func(p *Policy) { p.ExcludedReasons = []string{"azAZ09"} }},
		{"no reason is excluded", "excluded-container-reasons", " ", func(p *Policy) { p.ExcludedReasons = []string{} }},
		{"a backoff", "backoff", "1m30s", func(p *Policy) { p.Backoff = 90 * time.Second }},
		{"no backoff", "backoff", "0s", func(p *Policy) { p.Backoff = 0 }},
		{"a grace for image pulls", "image-pull-grace", "30s", func(p *Policy) { p.ImagePullGrace = 30 * time.Second }},
		{"a start deadline", "start-deadline", "10m", func(p *Policy) { p.StartDeadline = 10 * time.Minute }},
		{"the failed node is not avoided", "avoid-failed-node", "false", func(p *Policy) { p.AvoidFailedNode = false }},
		{"Python's spelling of a boolean is understood", "avoid-failed-node", "False", func(p *Policy) { p.AvoidFailedNode = false }},
		{"an annotation that is none of ours is left alone", "max-retry", "9", func(*Policy) {}},
	} {
		t.Run(c.name, func(t *testing.T) {
			want := DefaultPolicy()
			c.want(&want)
			got, warnings := DefaultPolicy().With(map[string]string{prefix + c.annotation: c.value})
			require.Equal(t, want, got)
			require.Empty(t, warnings)
		})
	}
}

func TestAValueThatCannotBeReadLeavesThePolicyAndWarns(t *testing.T) {
	const prefix = "annotation airflow-requeue.dev/"
	number, duration := "a whole number, 0 for off or -1 for unlimited; using 1", `a duration such as "90s" or "2m"; using `
	list, boolean := `a comma-separated list of reasons such as "Error,OOMKilled"; using Error`, `"true" or "false"; using true`
	for _, c := range []struct{ name, annotation, value, want string }{
		{"max-retries in words", AnnotationMaxRetries, "two", prefix + `max-retries: "two" is not ` + number},
		{"max-retries empty", AnnotationMaxRetries, "", prefix + `max-retries: "" is not ` + number},
		{"max-retries below -1", AnnotationMaxRetries, "-2", prefix + `max-retries: "-2" is not ` + number},
		{"max-retries as a fraction", AnnotationMaxRetries, "1.5", prefix + `max-retries: "1.5" is not ` + number},
		{"max-retries beyond an integer", AnnotationMaxRetries, "99999999999999999999", prefix + `max-retries: "99999999999999999999" is not ` + number},
		{"reasons with a gap", AnnotationExcludedReasons, "Error,,OOMKilled", prefix + `excluded-container-reasons: "Error,,OOMKilled" is not ` + list},
		{"reasons as a list of JSON", AnnotationExcludedReasons, `["Error"]`, prefix + `excluded-container-reasons: "[\"Error\"]" is not ` + list},
		{"a reason with what comes before a", AnnotationExcludedReasons, "`", prefix + "excluded-container-reasons: \"`\" is not " + list},
		{"a reason with what comes after z", AnnotationExcludedReasons, "{", prefix + `excluded-container-reasons: "{" is not ` + list},
		{"a reason with what comes before A", AnnotationExcludedReasons, "@", prefix + `excluded-container-reasons: "@" is not ` + list},
		{"a reason with what comes after Z", AnnotationExcludedReasons, "[", prefix + `excluded-container-reasons: "[" is not ` + list},
		{"a reason with what comes before 0", AnnotationExcludedReasons, "/", prefix + `excluded-container-reasons: "/" is not ` + list},
		{"a reason with what comes after 9", AnnotationExcludedReasons, ":", prefix + `excluded-container-reasons: ":" is not ` + list},
		{"reasons apart by spaces", AnnotationExcludedReasons, "Error OOMKilled", prefix + `excluded-container-reasons: "Error OOMKilled" is not ` + list},
		{"a backoff without a unit", AnnotationBackoff, "5", prefix + `backoff: "5" is not ` + duration + "5s"},
		{"a backoff below nothing", AnnotationBackoff, "-5s", prefix + `backoff: "-5s" is not ` + duration + "5s"},
		{"a grace in words", AnnotationImagePullGrace, "two minutes", prefix + `image-pull-grace: "two minutes" is not ` + duration + "2m0s"},
		{"a start deadline that is empty", AnnotationStartDeadline, "", prefix + `start-deadline: "" is not ` + duration + "0s"},
		{"a start deadline beyond time", AnnotationStartDeadline, "9999999h", prefix + `start-deadline: "9999999h" is not ` + duration + "0s"},
		{"a boolean in words", AnnotationAvoidFailedNode, "yes", prefix + `avoid-failed-node: "yes" is not ` + boolean},
		{"a value that is long is cut", AnnotationBackoff, strings.Repeat("é", 50), prefix + `backoff: "` + strings.Repeat("é", 40) + `" is not ` + duration + "5s"},
		{"a value with control characters is quoted", AnnotationBackoff, "\x1b[2J", prefix + `backoff: "\x1b[2J" is not ` + duration + "5s"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, warnings := DefaultPolicy().With(map[string]string{c.annotation: c.value})
			require.Equal(t, DefaultPolicy(), got)
			require.Equal(t, []string{c.want}, warnings)
		})
	}
}

func TestEveryTuningAnnotationIsReadAndWarnsOnItsOwn(t *testing.T) {
	bad := map[string]string{}
	for _, name := range tuningAnnotations() {
		bad[name] = "?!"
	}
	got, warnings := DefaultPolicy().With(bad)
	require.Equal(t, DefaultPolicy(), got)
	require.Len(t, warnings, len(tuningAnnotations()))
	for i, name := range tuningAnnotations() {
		require.Contains(t, warnings[i], name)
	}
}

func TestTheOperatorsPolicyIsWhatAValueThatCannotBeReadFallsBackTo(t *testing.T) {
	operator := DefaultPolicy()
	operator.MaxRetries = 4
	got, warnings := operator.With(map[string]string{AnnotationMaxRetries: "many"})
	require.Equal(t, operator, got)
	require.Equal(t, []string{`annotation airflow-requeue.dev/max-retries: "many" is not a whole number, 0 for off or -1 for unlimited; using 4`}, warnings)
}

func TestTheOperatorsBoundsHoldAgainstAPodsTuning(t *testing.T) {
	const prefix = "annotation airflow-requeue.dev/"
	for _, c := range []struct {
		name, annotation, value string
		cap                     int
		floor                   time.Duration
		want                    func(*Policy)
		warning                 string
	}{
		{"fewer retries than the cap", AnnotationMaxRetries, "2", 3, 0, func(p *Policy) { p.MaxRetries = 2 }, ""},
		{"as many as the cap", AnnotationMaxRetries, "3", 3, 0, func(p *Policy) { p.MaxRetries = 3 }, ""},
		{"more than the cap", AnnotationMaxRetries, "4", 3, 0, func(p *Policy) { p.MaxRetries = 3 },
			prefix + "max-retries: 4 is more than the operator allows; using 3"},
		{"no limit under a cap", AnnotationMaxRetries, "-1", 3, 0, func(p *Policy) { p.MaxRetries = 3 },
			prefix + "max-retries: -1 is more than the operator allows; using 3"},
		{"off under a cap", AnnotationMaxRetries, "0", 3, 0, func(p *Policy) { p.MaxRetries = 0 }, ""},
		{"any under a cap that is off", AnnotationMaxRetries, "1", 0, 0, func(p *Policy) { p.MaxRetries = 0 },
			prefix + "max-retries: 1 is more than the operator allows; using 0"},
		{"a backoff below the floor", AnnotationBackoff, "1s", -1, 30 * time.Second, func(p *Policy) { p.Backoff = time.Second },
			prefix + "backoff: 1s is less than the operator allows; no wait is shorter than 30s"},
		{"a backoff at the floor", AnnotationBackoff, "30s", -1, 30 * time.Second, func(p *Policy) { p.Backoff = 30 * time.Second }, ""},
		{"another annotation, with a default that is below the floor", AnnotationAvoidFailedNode, "false", -1, 30 * time.Second,
			func(p *Policy) { p.AvoidFailedNode = false }, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			operator := DefaultPolicy()
			operator.MaxRetriesCap, operator.BackoffFloor = c.cap, c.floor
			want := operator
			c.want(&want)
			got, warnings := operator.With(map[string]string{c.annotation: c.value})
			require.Equal(t, want, got)
			if c.warning == "" {
				require.Empty(t, warnings)
				return
			}
			require.Equal(t, []string{c.warning}, warnings)
		})
	}
}

func TestNoBackoffFromTheSecondReplacementOnIsBelowTheFloorOrAboveTheMost(t *testing.T) {
	for _, c := range []struct {
		name           string
		backoff, floor time.Duration
		attempt        int
		least, most    time.Duration
	}{
		{"the first replacement does not wait", 5 * time.Second, time.Minute, 1, 0, 0},
		{"a backoff below the floor", 5 * time.Second, 30 * time.Second, 2, 30 * time.Second, 37500 * time.Millisecond},
		{"no backoff at all", 0, 30 * time.Second, 2, 30 * time.Second, 37500 * time.Millisecond},
		{"no backoff at all, much later", 0, 30 * time.Second, 1 << 40, 30 * time.Second, 37500 * time.Millisecond},
		{"a backoff that only jitter would take below the floor", 30 * time.Second, 30 * time.Second, 2, 30 * time.Second, 37500 * time.Millisecond},
		{"a backoff that has outgrown the floor", 30 * time.Second, 30 * time.Second, 3, 48 * time.Second, time.Minute},
		{"a floor as high as may be", 5 * time.Second, 2 * time.Minute, 2, 2 * time.Minute, 2 * time.Minute},
		{"a floor that is almost as high", 5 * time.Second, 110 * time.Second, 5, 110 * time.Second, 2 * time.Minute},
		{"a floor beyond everything", 5 * time.Second, 1<<63 - 1, 2, 2 * time.Minute, 2 * time.Minute},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := Policy{Backoff: c.backoff, BackoffFloor: c.floor}
			different := map[time.Duration]bool{}
			for i := range 300 {
				d := p.BackoffBefore(c.attempt, strconv.Itoa(i))
				require.GreaterOrEqual(t, d, c.least)
				require.LessOrEqual(t, d, c.most)
				different[d] = true
			}
			if c.least < c.most {
				require.Greater(t, len(different), 50, "pods that failed together come back apart")
			}
		})
	}
}

func TestTuningDoesNotReachIntoThePolicyItGoesOver(t *testing.T) {
	operator := DefaultPolicy()
	_, _ = operator.With(map[string]string{AnnotationExcludedReasons: "OOMKilled"})
	require.Equal(t, DefaultPolicy(), operator)
}

func TestBackoffDoublesFromTheSecondReplacementOnUpToTwoMinutes(t *testing.T) {
	for _, c := range []struct {
		name    string
		backoff time.Duration
		attempt int
		most    time.Duration
	}{
		{"the first replacement does not wait", 5 * time.Second, 1, 0},
		{"nor does what comes before it", 5 * time.Second, 0, 0},
		{"the second waits for the backoff", 5 * time.Second, 2, 5 * time.Second},
		{"the third for twice that", 5 * time.Second, 3, 10 * time.Second},
		{"the sixth for sixteen times that", 5 * time.Second, 6, 80 * time.Second},
		{"the seventh for two minutes", 5 * time.Second, 7, 2 * time.Minute},
		{"no replacement waits longer", 5 * time.Second, 1 << 40, 2 * time.Minute},
		{"a backoff beyond two minutes is two minutes", time.Hour, 2, 2 * time.Minute},
		{"a backoff beyond everything is two minutes", 1<<63 - 1, 3, 2 * time.Minute},
		{"no backoff stays none", 0, 9, 0},
		{"a backoff below nothing is none", -time.Second, 9, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := Policy{Backoff: c.backoff}
			different := map[time.Duration]bool{}
			for _, uid := range []string{"", "a", "b", "c", "d", "e", "f", "g"} {
				d := p.BackoffBefore(c.attempt, uid)
				require.LessOrEqual(t, d, c.most)
				require.GreaterOrEqual(t, d, c.most-c.most/5)
				require.Equal(t, d, p.BackoffBefore(c.attempt, uid), "the same each time")
				different[d] = true
			}
			if c.most > 0 {
				require.Greater(t, len(different), 5, "pods that failed together come back apart")
			}
		})
	}
}
