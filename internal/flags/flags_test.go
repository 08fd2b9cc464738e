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
		"--image-pull-grace=3m", "--start-deadline=4m", "--avoid-failed-node=false", "--clock-skew=5s", "--task-queued-timeout=6m"}))

	assert.Equal(t, requeue.Policy{
		MaxRetries: requeue.Unlimited, ExcludedReasons: []string{"Error", "OOMKilled"}, Backoff: time.Second, ImagePullGrace: 3 * time.Minute,
		StartDeadline: 4 * time.Minute, AvoidFailedNode: false, ClockSkew: 5 * time.Second, TaskQueuedTimeout: 6 * time.Minute,
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
	err := ValidatePolicy(requeue.Policy{MaxRetries: -2, ExcludedReasons: []string{"a b"}, Backoff: -1, ImagePullGrace: -1, StartDeadline: -1, ClockSkew: -1})
	assert.EqualError(t, err, `--max-retries=-2: use 0 for off, -1 for unlimited, or a number above
--excluded-container-reasons=a b: use reasons such as Error,OOMKilled
--backoff: use 0 or more
--image-pull-grace: use 0 or more
--start-deadline: use 0 for none, or more
--clock-skew: use 0 or more
--task-queued-timeout: use what Airflow has, such as 10m`)
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
