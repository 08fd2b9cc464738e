package faultproxy

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Fault is what becomes of a request instead of its passing.
type Fault func(w http.ResponseWriter, r *http.Request, server http.Handler)

// DropBefore ends the connection; the server never gets the request.
func DropBefore(http.ResponseWriter, *http.Request, http.Handler) {
	panic(http.ErrAbortHandler) // how a handler ends its connection without an answer
}

// DropAfter ends the connection when the server has done what was asked: nobody is told.
func DropAfter(_ http.ResponseWriter, r *http.Request, server http.Handler) {
	carryOut(r, server)
	panic(http.ErrAbortHandler)
}

// DropAfterUnseen is DropAfter while the informers do not hear of the pod: what was done shows only when it is done again.
func (p *Proxy) DropAfterUnseen(lag time.Duration) Fault {
	return func(w http.ResponseWriter, r *http.Request, server http.Handler) {
		if request, ok := describe(r); ok {
			p.Lag(request.Pod, lag)
		}
		DropAfter(w, r, server)
	}
}

// carryOut has the server do what was asked, whatever becomes of who asked, and returns the answer.
func carryOut(r *http.Request, server http.Handler) *httptest.ResponseRecorder {
	answer := httptest.NewRecorder()
	server.ServeHTTP(answer, r.WithContext(context.WithoutCancel(r.Context())))
	return answer
}

// DropBeforeAnd does something and then what DropBefore does: kill the watcher before the server gets the request.
func DropBeforeAnd(do func()) Fault {
	return func(w http.ResponseWriter, r *http.Request, server http.Handler) {
		do()
		DropBefore(w, r, server)
	}
}

// DropAfterAnd has the server do what was asked, then does something and ends the connection.
func DropAfterAnd(do func()) Fault {
	return func(_ http.ResponseWriter, r *http.Request, server http.Handler) {
		carryOut(r, server)
		do()
		panic(http.ErrAbortHandler)
	}
}

// First does something and lets the request pass.
func First(do func()) Fault {
	return func(w http.ResponseWriter, r *http.Request, server http.Handler) {
		do()
		server.ServeHTTP(w, r)
	}
}

// Then lets the server do what was asked, then does something, and only then passes the answer on.
func Then(do func()) Fault {
	return func(w http.ResponseWriter, r *http.Request, server http.Handler) {
		answer := carryOut(r, server)
		do()
		for name, values := range answer.Header() {
			w.Header()[name] = values
		}
		w.WriteHeader(answer.Code)
		_, _ = w.Write(answer.Body.Bytes()) // who asked may be gone
	}
}

// Delay lets the request pass after a while.
func Delay(d time.Duration) Fault {
	return First(func() { time.Sleep(d) })
}

// TooManyRequests is how the API server's priority and fairness sends clients away for a second.
func TooManyRequests(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
	w.Header().Set("Retry-After", "1")
	answer(w, apierrors.NewTooManyRequestsError("too many requests, please try again later"))
}

// Conflict is a lost guard, or for a create, a quota whose usage too many wanted to write at once.
func Conflict(w http.ResponseWriter, r *http.Request, _ http.Handler) {
	resource, name := "pods", ""
	if request, ok := describe(r); ok {
		name = request.Chain
	}
	if r.Method == http.MethodPost {
		resource, name = "resourcequotas", "pods"
	}
	answer(w, apierrors.NewConflict(corev1.Resource(resource), name, errModified))
}

// errModified is the text of the registry's OptimisticLockErrorMsg.
const errModified = constError("the object has been modified; please apply your changes to the latest version and try again")

type constError string

func (e constError) Error() string { return string(e) }

// InternalError is what a webhook or an etcd that fails makes of a request.
func InternalError(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
	answer(w, apierrors.NewInternalError(constError("etcdserver: request timed out")))
}

// Unavailable is an API server that starts, stops or has lost etcd.
func Unavailable(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
	answer(w, apierrors.NewServiceUnavailable("the server is currently unable to handle the request"))
}

func answer(w http.ResponseWriter, err *apierrors.StatusError) {
	status := err.Status()
	status.TypeMeta = metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}
	body, _ := json.Marshal(status) // never fails: a Status is plain data
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(int(status.Code))
	_, _ = w.Write(body) // who asked may be gone
}
