package keyring

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// Site says where an installation has its keys and their readers.
type Site struct {
	Client       kubernetes.Interface
	Installation string
	Namespace    string // of the Secret, and of the readers' pods
	Secret       string // its name
}

const (
	// askTimeout bounds the question to one reader.
	askTimeout = 5 * time.Second
	// maxAnswer bounds what a reader may say, in bytes: in headers, and in what comes after them.
	maxAnswer = 64 << 10
	// askedAtOnce bounds how many are asked at the same time: any pod may have a reader's labels.
	askedAtOnce = 16
	// metricsPort is the name of the port on which readers answer.
	metricsPort = "metrics"
)

var errUnreadable = errors.New("an answer that can't be read")

// Get reads the Secret.
func (s Site) Get(ctx context.Context) (*corev1.Secret, error) {
	secret, err := s.Client.CoreV1().Secrets(s.Namespace).Get(ctx, s.Secret, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("reading Secret %s/%s: %w", s.Namespace, s.Secret, err)
	}
	return secret, nil
}

// Readers asks each pod of the installation that may have keys mounted which it has. A pod without a node has nothing
// mounted yet, and one that is over signs nothing more.
func (s Site) Readers(ctx context.Context) ([]Reader, error) {
	list, err := s.Client.CoreV1().Pods(s.Namespace).List(ctx, metav1.ListOptions{LabelSelector: fmt.Sprintf(
		"app.kubernetes.io/instance=%s,app.kubernetes.io/component in (%s,%s)", s.Installation, webhook, watcher)})
	if err != nil {
		return nil, fmt.Errorf("listing the pods of installation %s in namespace %s: %w", s.Installation, s.Namespace, err)
	}
	pods := slices.DeleteFunc(list.Items, func(p corev1.Pod) bool {
		return p.Spec.NodeName == "" || p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
	})
	// Pods are asked at their own addresses: neither by a proxy, nor wherever an answer leads to.
	client := &http.Client{Timeout: askTimeout, Transport: &http.Transport{DisableKeepAlives: true, MaxResponseHeaderBytes: maxAnswer},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	readers := make([]Reader, len(pods))
	var asking errgroup.Group
	asking.SetLimit(askedAtOnce)
	for i := range pods {
		asking.Go(func() error {
			readers[i] = read(ctx, client, &pods[i])
			return nil
		})
	}
	_ = asking.Wait() // never an error: who is silent is told
	slices.SortFunc(readers, func(a, b Reader) int { return strings.Compare(a.Pod, b.Pod) })
	return readers, nil
}

// read is what one pod says, or why it says nothing.
func read(ctx context.Context, client *http.Client, pod *corev1.Pod) Reader {
	r := Reader{Pod: pod.Name, Component: pod.Labels["app.kubernetes.io/component"]}
	held, err := ask(ctx, client, pod)
	if err != nil {
		r.Silent = err.Error()
		return r
	}
	r.Held = held
	return r
}

// ask returns what one pod says. Errors quote nothing of its answer.
func ask(ctx context.Context, client *http.Client, pod *corev1.Pod) (Held, error) {
	port := portOf(pod)
	if pod.Status.PodIP == "" || port == 0 {
		return Held{}, errors.New("no address yet, or no port named " + metricsPort)
	}
	address := "http://" + net.JoinHostPort(pod.Status.PodIP, strconv.Itoa(int(port))) + Path
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, http.NoBody)
	if err != nil {
		return Held{}, errors.New("no address that can be asked")
	}
	response, err := client.Do(request)
	if err != nil {
		return Held{}, unanswered(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return Held{}, errors.New("HTTP status " + strconv.Itoa(response.StatusCode))
	}
	var held Held
	if json.NewDecoder(io.LimitReader(response.Body, maxAnswer)).Decode(&held) != nil {
		return Held{}, errUnreadable
	}
	return held, nil
}

// unanswered is an error of the network's as it is, without the address. Others may quote the answer.
func unanswered(err error) error {
	var failed *url.Error
	if errors.As(err, &failed) {
		err = failed.Err
	}
	var network net.Error
	if !errors.As(err, &network) {
		return errUnreadable
	}
	return err
}

func portOf(pod *corev1.Pod) int32 {
	for _, c := range pod.Spec.Containers {
		for _, p := range c.Ports {
			if p.Name == metricsPort {
				return p.ContainerPort
			}
		}
	}
	return 0
}
