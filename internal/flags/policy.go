package flags

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/pflag"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// AddPolicyFlags adds the flags of the operator's policy, with what policy holds as defaults. Webhook and watcher are to
// be given the same.
func AddPolicyFlags(set *pflag.FlagSet, policy *requeue.Policy) {
	set.IntVar(&policy.MaxRetries, "max-retries", policy.MaxRetries,
		"how often the pods of one queueing are replaced; 0: such pods are not held at all, -1: without limit")
	set.StringSliceVar(&policy.ExcludedReasons, "excluded-container-reasons", policy.ExcludedReasons,
		"`reasons` of terminated containers that are real failures and never lead to a replacement; comma-separated, may be empty")
	set.DurationVar(&policy.Backoff, "backoff", policy.Backoff,
		"wait before the second replacement, doubled for each after it up to "+requeue.MaxBackoff.String()+"; the first has none")
	set.DurationVar(&policy.ImagePullGrace, "image-pull-grace", policy.ImagePullGrace,
		"how long an image pull may fail before the pod is replaced")
	set.DurationVar(&policy.StartDeadline, "start-deadline", policy.StartDeadline,
		"how long a pod may be Pending before it is replaced; 0: for ever")
	set.BoolVar(&policy.AvoidFailedNode, "avoid-failed-node", policy.AvoidFailedNode,
		"let a replacement prefer another node than the failed pod's")
	set.IntVar(&policy.MaxRetriesCap, "max-retries-cap", policy.MaxRetriesCap,
		"most that a pod's annotation may have as max-retries; -1: no cap")
	set.DurationVar(&policy.BackoffFloor, "backoff-floor", policy.BackoffFloor,
		"least wait before the second replacement and each after it, whatever a pod's annotation says; 0: none")
	set.DurationVar(&policy.ClockSkew, "clock-skew", policy.ClockSkew,
		"how far the clocks of Airflow and of the API server may be apart")
	set.DurationVar(&policy.TaskQueuedTimeout, "task-queued-timeout", policy.TaskQueuedTimeout,
		"Airflow's [scheduler] task_queued_timeout, or less: after it no replacement is made")
}

// ValidatePolicy says which flags of AddPolicyFlags can't be meant, and what could be.
func ValidatePolicy(policy requeue.Policy) error {
	var errs []error
	if policy.MaxRetries < requeue.Unlimited {
		errs = append(errs, fmt.Errorf("--max-retries=%d: use 0 for off, -1 for unlimited, or a number above", policy.MaxRetries))
	}
	if policy.MaxRetriesCap < requeue.Unlimited {
		errs = append(errs, fmt.Errorf("--max-retries-cap=%d: use -1 for no cap, or the most that a pod may ask for", policy.MaxRetriesCap))
	} else if policy.MaxRetries >= requeue.Unlimited && !policy.Allows(policy.MaxRetries) {
		errs = append(errs, fmt.Errorf("--max-retries=%d is more than --max-retries-cap=%d: lower the default or raise the cap",
			policy.MaxRetries, policy.MaxRetriesCap))
	}
	// Flag and annotation take the same words.
	reasons := strings.Join(policy.ExcludedReasons, ",")
	if _, warnings := policy.With(map[string]string{requeue.AnnotationExcludedReasons: reasons}); len(warnings) > 0 {
		errs = append(errs, fmt.Errorf("--excluded-container-reasons=%s: use reasons such as Error,OOMKilled", reasons))
	}
	for _, d := range []struct {
		name  string
		valid bool
		want  string
	}{
		{"backoff", policy.Backoff >= 0, "0 or more"},
		{"backoff-floor", 0 <= policy.BackoffFloor && policy.BackoffFloor <= requeue.MaxBackoff, "0 for none, up to " + requeue.MaxBackoff.String()},
		{"image-pull-grace", policy.ImagePullGrace >= 0, "0 or more"},
		{"start-deadline", policy.StartDeadline >= 0, "0 for none, or more"},
		{"clock-skew", policy.ClockSkew >= 0, "0 or more"},
		{"task-queued-timeout", policy.TaskQueuedTimeout > 0, "what Airflow has, such as 10m"},
	} {
		if !d.valid {
			errs = append(errs, fmt.Errorf("--%s: use %s", d.name, d.want))
		}
	}
	return errors.Join(errs...)
}
