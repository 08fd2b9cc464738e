package executor

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// workload is Airflow 3's ExecuteTask (airflow/executors/workloads/task.py), its fields in the order that pydantic
// writes them.
type workload struct {
	Token             string           `json:"token"`
	DagRelPath        string           `json:"dag_rel_path"`
	BundleInfo        bundleInfo       `json:"bundle_info"`
	LogPath           string           `json:"log_path"`
	TaskInstance      workloadInstance `json:"ti"`
	SentryIntegration string           `json:"sentry_integration"`
	Type              string           `json:"type"`
}

type bundleInfo struct {
	Name    string  `json:"name"`
	Version *string `json:"version"`
}

type workloadInstance struct {
	ID             string            `json:"id"`
	TaskID         string            `json:"task_id"`
	DagID          string            `json:"dag_id"`
	RunID          string            `json:"run_id"`
	TryNumber      int               `json:"try_number"`
	DagVersionID   string            `json:"dag_version_id"`
	MapIndex       int               `json:"map_index"`
	Hostname       *string           `json:"hostname"`
	ContextCarrier map[string]string `json:"context_carrier"`
	Queue          string            `json:"queue"`
	PoolSlots      int               `json:"pool_slots"`
	PriorityWeight int               `json:"priority_weight"`
}

// header and claims are those of tokens.JWTGenerator.generate with a shared secret, in PyJWT's order.
type header struct {
	Algorithm string `json:"alg"`
	KeyID     string `json:"kid"`
	Type      string `json:"typ"`
}

type claims struct {
	Subject   string `json:"sub"`
	Scope     string `json:"scope"`
	ID        string `json:"jti"`
	Audience  string `json:"aud"`
	NotBefore int64  `json:"nbf"`
	Expires   int64  `json:"exp"`
	IssuedAt  int64  `json:"iat"`
}

// tokenKey signs the tokens. Nothing verifies them here: a token is only read for its times.
const tokenKey = "not a secret: signs the tokens of tests and of the demo, which nobody verifies"

// args is the command of the container: pod_generator.workload_to_command_args in Airflow 3,
// TaskInstance.command_as_list(local=True) in Airflow 2.
func (t Task) args() []string {
	if t.release() == Airflow2 {
		args := []string{"airflow", "tasks", "run", t.DagID, t.TaskID, t.RunID, "--local",
			"--subdir", "DAGS_FOLDER/" + t.DagID + ".py"}
		if t.MapIndex != -1 {
			args = append(args, "--map-index", strconv.Itoa(t.MapIndex))
		}
		return args
	}
	return []string{"python", "-m", "airflow.sdk.execution_time.execute_workload", "--json-string", t.workload()}
}

func (t Task) workload() string {
	return encode(workload{
		Token:      t.token(),
		DagRelPath: t.DagID + ".py",
		BundleInfo: bundleInfo{Name: "dags-folder"},
		LogPath:    t.logPath(),
		TaskInstance: workloadInstance{
			ID:             t.ID,
			TaskID:         t.TaskID,
			DagID:          t.DagID,
			RunID:          t.RunID,
			TryNumber:      t.TryNumber,
			DagVersionID:   t.DagVersionID,
			MapIndex:       t.MapIndex,
			ContextCarrier: map[string]string{},
			Queue:          "default",
			PoolSlots:      1,
			PriorityWeight: 1,
		},
		Type: "ExecuteTask",
	})
}

// logPath is [logging] log_filename_template's default.
func (t Task) logPath() string {
	path := fmt.Sprintf("dag_id=%s/run_id=%s/task_id=%s/", t.DagID, t.RunID, t.TaskID)
	if t.MapIndex >= 0 {
		path += fmt.Sprintf("map_index=%d/", t.MapIndex)
	}
	return path + fmt.Sprintf("attempt=%d.log", t.TryNumber)
}

func (t Task) token() string {
	lifetime := t.TokenLifetime
	if lifetime == 0 {
		lifetime = TokenLifetime
	}
	issued := t.QueuedAt.Unix()
	signed := segment(encode(header{Algorithm: "HS512", KeyID: "not-used", Type: "JWT"})) + "." +
		segment(encode(claims{
			Subject:   t.ID,
			Scope:     "workload",
			ID:        strings.ReplaceAll(t.TokenID, "-", ""),
			Audience:  "urn:airflow.apache.org:task",
			NotBefore: issued,
			Expires:   issued + int64(lifetime.Seconds()),
			IssuedAt:  issued,
		}))
	mac := hmac.New(sha512.New, []byte(tokenKey))
	mac.Write([]byte(signed))
	return signed + "." + segment(string(mac.Sum(nil)))
}

func segment(s string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(s))
}

// encode is JSON as Python writes it: nothing is escaped for HTML.
func encode(v any) string {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		panic(fmt.Sprintf("encoding %T: %v", v, err)) // only strings and numbers: cannot fail
	}
	return strings.TrimSuffix(b.String(), "\n")
}
