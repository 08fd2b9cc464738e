package requeue

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Job is the work that a pod was made for, read from the job spec and never from the live pod: what a decision may
// believe.
type Job struct {
	Ref       Ref
	TryNumber int
	// IssuedAt and Expires are the iat and exp of the task's token, in whole seconds (Airflow 3); zero in Airflow 2. A
	// pod that starts after Expires cannot begin its task.
	IssuedAt, Expires time.Time
	// Tuning holds the annotations under this project's prefix.
	Tuning map[string]string
}

// podSpec is the part of a job spec that a Job is read from.
type podSpec struct {
	Metadata struct {
		Annotations map[string]string `json:"annotations"`
	} `json:"metadata"`
	Spec struct {
		Containers []struct {
			Name string   `json:"name"`
			Args []string `json:"args"`
		} `json:"containers"`
	} `json:"spec"`
}

// ParseJob reads a pod's JSON as Airflow submitted it. It fails for a pod that does not name a task instance; the error
// names what is missing and quotes nothing.
func ParseJob(pod []byte) (Job, error) {
	var p podSpec
	if err := json.Unmarshal(pod, &p, AsAPIServer()); err != nil {
		return Job{}, errors.New("parsing the job spec: not the JSON of a pod")
	}
	a := p.Metadata.Annotations
	job := Job{Ref: Ref{Key: Key{DagID: a[annotationDagID], TaskID: a[annotationTaskID], RunID: a[annotationRunID], MapIndex: -1}}}
	for _, name := range []string{annotationDagID, annotationTaskID, annotationRunID, annotationTryNumber} {
		if a[name] == "" {
			return Job{}, fmt.Errorf("reading the task instance: annotation %s is missing", name)
		}
	}
	var err error
	if job.TryNumber, err = strconv.Atoi(a[annotationTryNumber]); err != nil {
		return Job{}, fmt.Errorf("reading the task instance: annotation %s is not a whole number", annotationTryNumber)
	}
	if v, ok := a[annotationMapIndex]; ok {
		if job.Ref.MapIndex, err = strconv.Atoi(v); err != nil {
			return Job{}, fmt.Errorf("reading the task instance: annotation %s is not a whole number", annotationMapIndex)
		}
	}
	for _, c := range p.Spec.Containers {
		if c.Name == BaseContainer {
			job.readWorkload(c.Args)
		}
	}
	// The annotation of Airflow 3.4 says that a row is to be read by id; which id, only the arguments are trusted to say.
	job.Ref.ByID = a[annotationTaskInstanceID] != "" && job.Ref.ID != ""
	job.Tuning = map[string]string{}
	for k, v := range a {
		if slices.Contains(tuningAnnotations(), k) {
			job.Tuning[k] = v
		}
	}
	return job, nil
}

// AsAPIServer reads what Kubernetes' own decoder reads: of two members of one name the last, and letters that are none.
func AsAPIServer() json.Options {
	return json.JoinOptions(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
}

// readWorkload reads the id and the token's times from `execute_workload --json-string <JSON>` (Airflow 3: class
// ExecuteTask). Arguments of any other form say nothing.
func (j *Job) readWorkload(args []string) {
	i := slices.Index(args, "--json-string")
	if i < 0 || i+1 >= len(args) {
		return
	}
	var w struct {
		Token string `json:"token"`
		TI    struct {
			ID string `json:"id"`
		} `json:"ti"`
	}
	if json.Unmarshal([]byte(args[i+1]), &w, AsAPIServer()) != nil {
		return
	}
	j.Ref.ID = strings.ToLower(w.TI.ID)
	parts := strings.Split(w.Token, ".")
	if len(parts) != 3 {
		return
	}
	claims, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return
	}
	var c struct {
		IssuedAt int64 `json:"iat"`
		Expires  int64 `json:"exp"`
	}
	if json.Unmarshal(claims, &c, AsAPIServer()) != nil {
		return
	}
	if c.IssuedAt > 0 {
		j.IssuedAt = time.Unix(c.IssuedAt, 0).UTC()
	}
	if c.Expires > 0 {
		j.Expires = time.Unix(c.Expires, 0).UTC()
	}
}
