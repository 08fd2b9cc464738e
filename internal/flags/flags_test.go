package flags

import (
	"bytes"
	"regexp"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

func TestPolicyFlagsDefaultToThePolicyTheyAreGiven(t *testing.T) {
	policy := requeue.DefaultPolicy()
	set := pflag.NewFlagSet("test", pflag.ContinueOnError)
	AddPolicyFlags(set, &policy)

	require.NoError(t, set.Parse(nil))

	assert.Equal(t, requeue.DefaultPolicy(), policy)
	assert.NoError(t, ValidatePolicy(policy))
}

func TestPolicyFlagsSetEveryField(t *testing.T) {
	policy := requeue.DefaultPolicy()
	set := pflag.NewFlagSet("test", pflag.ContinueOnError)
	AddPolicyFlags(set, &policy)

	require.NoError(t, set.Parse([]string{"--max-retries=-1", "--excluded-container-reasons=Error,OOMKilled", "--backoff=1s",
		"--image-pull-grace=3m", "--start-deadline=4m", "--avoid-failed-node=false", "--max-retries-cap=-1", "--backoff-floor=30s", "--clock-skew=5s", "--task-queued-timeout=6m"}))

	assert.Equal(t, requeue.Policy{
		MaxRetries: requeue.Unlimited, ExcludedReasons: []string{"Error", "OOMKilled"}, Backoff: time.Second, ImagePullGrace: 3 * time.Minute,
		StartDeadline: 4 * time.Minute, AvoidFailedNode: false, MaxRetriesCap: requeue.Unlimited, BackoffFloor: 30 * time.Second, ClockSkew: 5 * time.Second, TaskQueuedTimeout: 6 * time.Minute,
	}, policy)
	assert.NoError(t, ValidatePolicy(policy))
}

func TestPolicyMayExcludeNoReason(t *testing.T) {
	policy := requeue.DefaultPolicy()
	set := pflag.NewFlagSet("test", pflag.ContinueOnError)
	AddPolicyFlags(set, &policy)
	require.NoError(t, set.Parse([]string{"--excluded-container-reasons="}))
	assert.Empty(t, policy.ExcludedReasons)
	assert.NoError(t, ValidatePolicy(policy))
}

func TestValidatePolicySaysAllThatIsWrong(t *testing.T) {
	err := ValidatePolicy(requeue.Policy{MaxRetries: -2, ExcludedReasons: []string{"a b"}, Backoff: -1, ImagePullGrace: -1, StartDeadline: -1, ClockSkew: -1,
		MaxRetriesCap: -2, BackoffFloor: -1})
	assert.EqualError(t, err, `--max-retries=-2: use 0 for off, -1 for unlimited, or a number above
--max-retries-cap=-2: use -1 for no cap, or the most that a pod may ask for
--excluded-container-reasons=a b: use reasons such as Error,OOMKilled
--backoff: use 0 or more
--backoff-floor: use 0 for none, up to 2m0s
--image-pull-grace: use 0 or more
--start-deadline: use 0 for none, or more
--clock-skew: use 0 or more
--task-queued-timeout: use what Airflow has, such as 10m`)
}

func TestTheDefaultOfMaxRetriesIsWithinItsCap(t *testing.T) {
	for _, c := range []struct {
		name            string
		maxRetries, cap int
		want            string
	}{
		{"no cap, and a number", 7, -1, ""},
		{"no cap, and no limit", -1, -1, ""},
		{"as many as the cap", 3, 3, ""},
		{"fewer than the cap", 1, 3, ""},
		{"off under a cap that is off", 0, 0, ""},
		{"more than the cap", 4, 3, "--max-retries=4 is more than --max-retries-cap=3: lower the default or raise the cap"},
		{"no limit under a cap", -1, 3, "--max-retries=-1 is more than --max-retries-cap=3: lower the default or raise the cap"},
		{"the default's default under a cap that is off", 1, 0, "--max-retries=1 is more than --max-retries-cap=0: lower the default or raise the cap"},
	} {
		t.Run(c.name, func(t *testing.T) {
			policy := requeue.DefaultPolicy()
			policy.MaxRetries, policy.MaxRetriesCap = c.maxRetries, c.cap
			err := ValidatePolicy(policy)
			if c.want == "" {
				assert.NoError(t, err)
				return
			}
			assert.EqualError(t, err, c.want)
		})
	}
}

func TestTheBackoffFloorIsNotAboveTheLongestBackoff(t *testing.T) {
	policy := requeue.DefaultPolicy()
	policy.BackoffFloor = requeue.MaxBackoff
	require.NoError(t, ValidatePolicy(policy))
	policy.BackoffFloor++
	assert.EqualError(t, ValidatePolicy(policy), "--backoff-floor: use 0 for none, up to 2m0s")
}

func TestLogWritesWhatItsFlagsSay(t *testing.T) {
	for _, c := range []struct{ level, format, want string }{
		{"info", "text", "level=INFO msg=info\nlevel=WARN msg=warn\n"},
		{"warn", "json", `{"level":"WARN","msg":"warn"}` + "\n"},
		{"debug", "text", "level=DEBUG msg=debug\nlevel=INFO msg=info\nlevel=WARN msg=warn\n"},
		{"error", "text", ""},
	} {
		t.Run(c.level+" "+c.format, func(t *testing.T) {
			var b bytes.Buffer
			log, err := Log{Level: c.level, Format: c.format}.New(&b)
			require.NoError(t, err)
			log.Debug("debug")
			log.Info("info")
			log.Warn("warn")
			assert.Equal(t, c.want, withoutTime(b.String()))
		})
	}
	_, err := Log{Level: "loud", Format: "json"}.New(nil)
	assert.EqualError(t, err, "--log-level=loud: use debug, info, warn or error")
	_, err = Log{Level: "info", Format: "xml"}.New(nil)
	assert.EqualError(t, err, "--log-format=xml: use json or text")
}

func TestOwnNamespaceIsTheEnvironmentsFirst(t *testing.T) {
	t.Setenv("POD_NAMESPACE", "airflow")
	assert.Equal(t, "airflow", OwnNamespace())
}

func withoutTime(s string) string {
	return regexp.MustCompile(`"time":"[^"]*",|time=\S+ `).ReplaceAllString(s, "")
}
