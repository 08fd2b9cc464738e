package main

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/airflow-requeue/airflow-requeue/pkg/tidb"
)

func TestParse(t *testing.T) {
	const own = "airflow"
	enough := []string{"--database-url-env=URL"}
	for _, c := range []struct {
		name string
		args []string
		own  string
		want string // in the error; empty for none
	}{
		{"in a cluster the database is all that must be told", enough, own, ""},
		{"outside a cluster namespaces must be told", enough, "", "--namespace is missing or empty"},
		{"outside a cluster the Lease's namespace must be told", append([]string{"--namespace=a"}, enough...), "", "--lease-namespace is empty"},
		{"mounted as the manifests do it, nothing must be told", nil, own, ""},
		{"one database is enough", append([]string{"--database-url-file=f"}, enough...), own, "--database-url-file and --database-url-env: give one"},
		{"a Lease is renewed before it runs out", append([]string{"--lease-renew-deadline=20s"}, enough...), own, "--lease-duration must be above"},
		{"somebody has to work", append([]string{"--workers=0"}, enough...), own, "--workers=0: use 1 or more"},
		{"a time to live has no sign", append([]string{"--replaced-pod-ttl=-1s"}, enough...), own, "--replaced-pod-ttl=-1s: use 0 or more"},
		{"a storm breaker has no sign", append([]string{"--storm-breaker=-1"}, enough...), own, "--storm-breaker=-1: use 0 for no limit"},
		{"there is a shard", append([]string{"--shards=0"}, enough...), own, "--shards=0: use 1, or how many watchers share the namespaces"},
		{"the only shard need not be told", append([]string{"--shards=1"}, enough...), own, ""},
		{"the only shard may be told", append([]string{"--shards=1", "--shard=0"}, enough...), own, ""},
		{"one of several shards must be told", append([]string{"--shards=3"}, enough...), own, "--shard=-1: use 0 to 2, one for each of the --shards"},
		{"the last shard", append([]string{"--shards=3", "--shard=2"}, enough...), own, ""},
		{"a shard past the last", append([]string{"--shards=3", "--shard=3"}, enough...), own, "--shard=3: use 0 to 2, one for each of the --shards"},
		{"a check looks at all shards", append([]string{"check", "--shards=3"}, enough...), own, ""},
		{"a check may be of a watcher's flags", append([]string{"check", "--shards=3", "--shard=1"}, enough...), own, ""},
		{"a release is of all shards", []string{"release", "--all", "--shards=2"}, own, "unknown flag: --shards"},
		{"a policy must be meant", append([]string{"--max-retries=-2"}, enough...), own, "--max-retries=-2: use 0 for off"},
		{"the keys' Secret has a name that it can have", append([]string{"--signing-keys-secret=a_b"}, enough...), own, "--signing-keys-secret=a_b: give the name of a Secret"},
		{"keys are not rotated all the time", append([]string{"--signing-keys-rotate-every=59m"}, enough...), own, "--signing-keys-rotate-every=59m0s: use 1h0m0s or more, or 0 for never"},
		{"keys need not be rotated", append([]string{"--signing-keys-rotate-every=0"}, enough...), own, ""},
		{"the installation is a label", append([]string{"--installation=a/b"}, enough...), own, "--installation=a/b: it names objects"},
		{"an unknown flag leads to help", []string{"--retries=1"}, own, "see --help"},
		{"an unknown command leads to help", []string{"repair"}, own, "unexpected argument repair; see --help"},
		{"a check takes the flags of the watch", append([]string{"check", "--workers=3", "--max-retries=2"}, enough...), own, ""},
		{"a check prints what is known", []string{"check", "--output=yaml"}, own, "--output=yaml: use table or json"},
		{"a check ends", []string{"check", "--timeout=0s"}, own, "--timeout=0s: use more than 0"},
		{"a release needs no database", []string{"release", "--all"}, own, ""},
		{"a release may delete the webhook's configuration first", []string{"release", "--all", "--webhook-configuration=blue"}, own, ""},
		{"an API server's request has a time", []string{"release", "--all", "--request-timeout=-1s"}, own, "--request-timeout=-1s: use 0 or more"},
		{"a release outlasts the API server's requests", []string{"release", "--all", "--webhook-configuration=blue", "--timeout=1m"}, own, "--timeout=1m0s: use more than --request-timeout=1m0s"},
		{"a release that deletes no configuration need not", []string{"release", "--all", "--timeout=1m"}, own, ""},
		{"a release must be meant", []string{"release"}, own, "release takes --all"},
		{"a release takes no flag of the watch", []string{"release", "--all", "--workers=1"}, own, "unknown flag: --workers"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o, help, err := parse(c.args, c.own)
			assert.Empty(t, help)
			if c.want != "" {
				require.ErrorContains(t, err, c.want)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, []string{own}, o.namespaces)
		})
	}
}

func TestDefaultsFollowTheInstallation(t *testing.T) {
	o, _, err := parse([]string{"--database-url-file=f", "--installation=blue"}, "airflow")
	require.NoError(t, err)
	assert.Equal(t, "blue", o.lease.Name)
	assert.Equal(t, "airflow", o.lease.Namespace)
	assert.Equal(t, tidb.Source{File: "f"}, o.database)
	assert.NotEmpty(t, o.lease.Identity)
	assert.Equal(t, time.Hour, o.replacedPodTTL)
	assert.Zero(t, o.stormBreaker, "off")
	assert.Empty(t, o.keysSecret, "somebody else brings the keys")
	assert.Equal(t, 90*24*time.Hour, o.rotateEvery)
}

func TestAWatcherServesTheNamespacesOfItsShard(t *testing.T) {
	for _, c := range []struct {
		args       string
		namespaces []string
		lease      string
		log        string
	}{
		{"", []string{"team-a", "team-b", "team-c"}, "airflow-requeue", ""},
		{"--shards=2 --shard=0", []string{"team-a", "team-c"}, "airflow-requeue-0", ""},
		{"--shards=2 --shard=1 --lease-name=blue", []string{"team-b"}, "blue-1", ""},
		{"--shards=4 --shard=1", nil, "airflow-requeue-1", "level=WARN msg=\"no namespace is in this shard\" shard=1 shards=4 namespaces=\"[team-a team-b team-c]\"\n"},
	} {
		o, _, err := parse(append([]string{"--namespace=team-a,team-b,team-c"}, strings.Fields(c.args)...), "airflow")
		require.NoError(t, err)
		var log bytes.Buffer
		namespaces, lease := o.served(slog.New(slog.NewTextHandler(&log, nil)))
		assert.Equal(t, c.namespaces, namespaces)
		assert.Equal(t, c.lease, lease.Name)
		_, line, _ := strings.Cut(log.String(), " ") // after the time
		assert.Equal(t, c.log, line)
	}
}

func TestACheckInsideOfARunningContainerNeedsNoFlags(t *testing.T) {
	for name, value := range map[string]string{"INSTALLATION": "blue", "NAMESPACES": "team-a,team-b", "SIGNING_KEYS_SECRET": "keys", "SHARDS": "2"} {
		t.Setenv(name, value)
	}
	told, _, err := parse([]string{"check", "--installation=blue", "--namespace=team-a,team-b", "--signing-keys-secret=keys", "--shards=2",
		"--database-url-file=/etc/airflow-requeue/database/url", "--signing-keys-dir=/etc/airflow-requeue/signing-keys"}, "airflow")
	require.NoError(t, err)
	untold, _, err := parse([]string{"check"}, "airflow")
	require.NoError(t, err)
	assert.Equal(t, told, untold)
	assert.Equal(t, "blue", untold.lease.Name)
}

func TestTheLowestShardThatHasANamespaceLooksAfterTheKeys(t *testing.T) {
	const second = "--namespace=team-b" // of two shards it is in the second
	for _, c := range []struct {
		args string
		want bool
	}{
		{"--namespace=team-a", true},
		{"--namespace=team-a,team-b --shards=2 --shard=0", true},
		{"--namespace=team-a,team-b --shards=2 --shard=1", false},
		{second + " --shards=2 --shard=0", false},
		{second + " --shards=2 --shard=1", true},
	} {
		o, _, err := parse(strings.Fields(c.args), "airflow")
		require.NoError(t, err)
		assert.Equal(t, c.want, o.keepsKeys(), c.args)
	}
}

func TestAnOperatorsBoundsAreTaken(t *testing.T) {
	o, _, err := parse([]string{"--database-url-file=f", "--storm-breaker=30", "--max-retries-cap=5", "--backoff-floor=20s"}, "airflow")
	require.NoError(t, err)
	assert.Equal(t, 30, o.stormBreaker)
	assert.Equal(t, 5, o.policy.MaxRetriesCap)
	assert.Equal(t, 20*time.Second, o.policy.BackoffFloor)
}

func TestHelpExplainsEachCommandsFlags(t *testing.T) {
	for command, want := range map[string][]string{
		"":             {"release --all", "check [flags]", "--database-url-file", "--max-retries", "Leader election:", "--shard part"},
		commandCheck:   {"INSTALLATION holds", "NAMESPACES holds", "SIGNING_KEYS_SECRET holds", "SHARDS holds", "--init", "--output", "--database-url-file"},
		commandRelease: {"release --all", "INSTALLATION holds", "NAMESPACES holds", "--all", "--webhook-configuration", "--request-timeout", "--timeout"},
	} {
		var out bytes.Buffer
		args := []string{"--help"}
		if command != "" {
			args = []string{command, "--help"}
		}
		require.NoError(t, run(t.Context(), args, &out, &out))
		for _, w := range want {
			assert.Contains(t, out.String(), w)
		}
	}
}
