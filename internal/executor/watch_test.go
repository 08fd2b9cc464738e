package executor

import (
	"context"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

// opened is a watch that was asked for.
type opened struct {
	Version string
	Labels  string
	After   time.Duration // since the first one
}

func TestWatchBeginsAgain(t *testing.T) {
	tooOld := apierrors.NewResourceExpired("too old resource version").Status()
	pod := Pod(NewTask("etl", "load", "run", time.Unix(0, 0)))
	pod.ResourceVersion = "42"
	pod.Status.Phase = corev1.PodRunning

	for _, tt := range []struct {
		name string
		do   func(*watch.RaceFreeFakeWatcher) // what becomes of the first watch; it is idle after that
		want opened                           // the second one
	}{
		{
			name: "after 30 s without an event, at the version it had begun at",
			do:   func(*watch.RaceFreeFakeWatcher) {},
			want: opened{Version: "0", After: 31 * time.Second},
		},
		{
			name: "after 30 s without another event, at the version it had begun at too",
			do:   func(events *watch.RaceFreeFakeWatcher) { time.Sleep(20 * time.Second); events.Modify(pod) },
			want: opened{Version: "0", After: 51 * time.Second},
		},
		{
			name: "when the server has ended it, at once, at the version seen last",
			do:   func(events *watch.RaceFreeFakeWatcher) { events.Modify(pod); events.Stop() },
			want: opened{Version: "42"},
		},
		{
			name: "when the server has ended it before any event, at once, with what there is",
			do:   func(events *watch.RaceFreeFakeWatcher) { events.Stop() },
			want: opened{Version: ""},
		},
		{
			name: "when its version is too old, at 0",
			do:   func(events *watch.RaceFreeFakeWatcher) { events.Modify(pod); events.Error(&tooOld) },
			want: opened{Version: "0", After: time.Second},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				client, watches := scripted(func(nth int, events *watch.RaceFreeFakeWatcher) error {
					if nth == 1 {
						cancel()
						return nil
					}
					go tt.do(events)
					return nil
				})
				w := Watch{Client: client, Namespace: "airflow", JobID: 17, Report: func(Seen) {}}
				require.NoError(t, w.Run(ctx))
				tt.want.Labels = "airflow-worker=17,airflow_executor_done!=True"
				require.Len(t, *watches, 2)
				assert.Equal(t, tt.want, (*watches)[1])
			})
		})
	}
}

func TestWatchTriesAgainWhenItIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		client, watches := scripted(func(nth int, _ *watch.RaceFreeFakeWatcher) error {
			if nth == 2 {
				cancel()
			}
			return apierrors.NewGenericServerResponse(http.StatusServiceUnavailable, "get", corev1.Resource("pods"), "", "", 0, true)
		})
		w := Watch{Client: client, JobID: 1, Report: func(Seen) {}}
		require.NoError(t, w.Run(ctx))
		assert.Equal(t, []opened{
			{Version: "0", Labels: "airflow-worker=1,airflow_executor_done!=True"},
			{Version: "0", Labels: "airflow-worker=1,airflow_executor_done!=True", After: time.Second},
			{Version: "0", Labels: "airflow-worker=1,airflow_executor_done!=True", After: 2 * time.Second},
		}, *watches)
	})
}

func TestWatchEndsOnAPodThatNamesNoTask(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, _ := scripted(func(_ int, events *watch.RaceFreeFakeWatcher) error {
			events.Add(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "airflow", Name: "stray"}})
			return nil
		})
		w := Watch{Client: client, JobID: 1, Report: func(Seen) {}}
		assert.EqualError(t, w.Run(t.Context()),
			"watching the pods of scheduler job 1: reading the task of pod airflow/stray: no annotation dag_id")
	})
}

func TestWatchRestartsOnWhatIsNoPod(t *testing.T) {
	w := Watch{Report: func(Seen) {}}
	for _, tt := range []struct {
		name   string
		object runtime.Object
		want   string
	}{
		{"an error", &metav1.Status{Message: "etcd is away"}, "following a watch: etcd is away"},
		{"another kind", &corev1.Node{}, "following a watch: it sent a *v1.Node"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			kind := watch.Added
			if _, ok := tt.object.(*metav1.Status); ok {
				kind = watch.Error
			}
			last, err := w.process(watch.Event{Type: kind, Object: tt.object}, "7")
			require.EqualError(t, err, tt.want)
			assert.Equal(t, "7", last)
			require.NotErrorIs(t, err, errIdle)
		})
	}
}

// scripted is a client whose watches are handed to do, and a record of them. Call it in a bubble.
func scripted(do func(nth int, events *watch.RaceFreeFakeWatcher) error) (*fake.Clientset, *[]opened) {
	client := fake.NewClientset()
	began := time.Now()
	var watches []opened
	client.PrependWatchReactor("pods", func(action clienttesting.Action) (bool, watch.Interface, error) {
		restrictions := action.(clienttesting.WatchAction).GetWatchRestrictions()
		watches = append(watches, opened{
			Version: restrictions.ResourceVersion, Labels: restrictions.Labels.String(), After: time.Since(began),
		})
		events := watch.NewRaceFreeFake()
		if err := do(len(watches)-1, events); err != nil {
			return true, nil, err
		}
		return true, events, nil
	})
	return client, &watches
}
