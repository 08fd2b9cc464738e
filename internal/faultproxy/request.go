package faultproxy

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"regexp"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// Request is one that a watcher makes about the pods of one task: a chain of a first pod and its replacements. The chain
// is named as the first pod is, and its task ID must be the same. Lists and watches of the informers, Events, Leases and
// namespaces are of no chain.
type Request struct {
	Chain string
	// Pod is its name; empty for a list.
	Pod string
	// What it is: the method and the pod's name without the chain's, as in "PATCH -r1/status"; "LIST" is the live look for
	// all pods of the task.
	What   string
	Write  bool
	N      int // 1 is the chain's first request
	NWrite int // 1 is the chain's first write
}

// replacementEnd is what a replacement's name has after that of the first pod: see requeue.ReplacementName.
var replacementEnd = regexp.MustCompile(`-r\d+(-[0-9a-f]{8})?$`)

func describe(r *http.Request) (Request, bool) {
	_, path, ok := strings.Cut(r.URL.Path, "/pods")
	if !ok || !strings.HasPrefix(r.URL.Path, "/api/v1/namespaces/") {
		return Request{}, false
	}
	if path == "" && r.Method == http.MethodGet {
		chain := taskOf(r.URL.Query().Get("labelSelector"))
		return Request{Chain: chain, What: "LIST"}, chain != ""
	}
	path = strings.TrimPrefix(path, "/")
	if r.Method == http.MethodPost {
		path = nameIn(r)
	}
	name, _, _ := strings.Cut(path, "/")
	chain := name[:len(name)-len(replacementEnd.FindString(name))]
	return Request{
		Chain: chain, Pod: name, What: strings.TrimSpace(r.Method + " " + strings.TrimPrefix(path, chain)), Write: r.Method != http.MethodGet,
	}, chain != ""
}

// taskOf is the task whose pods a list selects; empty for the informers' and the clean-up's.
func taskOf(selector string) string {
	selected, err := labels.ConvertSelectorToLabelsMap(selector)
	if err != nil || selected[requeue.LabelKubernetesExecutor] == "" {
		return ""
	}
	return selected["task_id"]
}

// nameIn is the name of the pod that a create makes. The request can still be sent.
func nameIn(r *http.Request) string {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return ""
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	var pod metav1.PartialObjectMetadata
	if err := json.Unmarshal(body, &pod); err != nil {
		return ""
	}
	return pod.Name
}
