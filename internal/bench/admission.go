package bench

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/airflow-requeue/airflow-requeue/internal/executor"
	"github.com/airflow-requeue/airflow-requeue/internal/programs"
	"github.com/airflow-requeue/airflow-requeue/internal/scrape"
	"github.com/airflow-requeue/airflow-requeue/internal/world"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// Whose webhook reviews the pods.
const (
	ours     = "airflow-requeue"
	empty    = "empty webhook"
	patching = "empty webhook with a patch"
	none     = "no webhook"
)

const (
	small = 5 << 10
	large = 200 << 10
)

// reviewed is a namespace whose pods some webhook reviews, or none.
type reviewed struct {
	who     string
	airflow kubernetes.Interface // as Airflow's scheduler
	*site
}

// admission creates pods as Airflow does, in turn where our webhook reviews them, where one does that does nothing, where one
// answers as large a patch as ours without any work, and where none does. Nobody settles them: the benchmark itself leads, so
// that all that the webhook's namespace has more is the webhook.
func admission(s *stage) {
	s.withSites(4, func(sites []*site) {
		all := []reviewed{{who: ours, site: sites[0]}, {who: empty, site: sites[1]}, {who: patching, site: sites[2]}, {who: none, site: sites[3]}}
		mine := all[0]
		mine.leadItself()
		mine.startWebhook()
		programs.UntilStamping(mine.t, mine.SchedulerAs(1))
		address := sites[1].startEmptyWebhook(sites[2], mine.patches())
		for k := range all {
			all[k].airflow = all[k].asAirflow()
		}
		for _, size := range []int{small, large} {
			s.direct(mine.site, address, size)
			for _, clients := range []int{1, 16, 64} {
				s.admit(all, size, clients)
			}
		}
		if s.options.Profiles != "" {
			s.profileAdmission(all)
		}
	})
}

// withSites runs f on several sites.
func (s *stage) withSites(n int, f func([]*site), sites ...*site) {
	if n == 0 {
		f(sites)
		return
	}
	s.with(func(i *site) { s.withSites(n-1, f, append(sites, i)...) })
}

// asAirflow is a client that asks as Airflow's does: in JSON, over connections of its own.
func (i *site) asAirflow() kubernetes.Interface {
	i.t.Helper()
	config := rest.CopyConfig(i.AirflowAccess())
	config.QPS = -1
	config.WarningHandler = rest.NoWarnings{}
	client, err := kubernetes.NewForConfig(config)
	require.NoError(i.t, err)
	return client
}

// leadItself holds the Lease as a watcher that can decide, until the site's end.
func (i *site) leadItself() {
	i.t.Helper()
	holder, seconds := "bench", int32(60)
	leases := i.client.CoordinationV1().Leases(i.Namespace)
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: world.Installation, Labels: map[string]string{requeue.LabelReady: "true"}},
		Spec: coordinationv1.LeaseSpec{HolderIdentity: &holder, LeaseDurationSeconds: &seconds}}
	renew := func(write func(context.Context, *coordinationv1.Lease) (*coordinationv1.Lease, error)) error {
		now := metav1.NowMicro()
		lease.Spec.RenewTime = &now
		written, err := write(i.t.Context(), lease)
		if err == nil {
			lease = written
		}
		return err
	}
	require.NoError(i.t, renew(func(ctx context.Context, l *coordinationv1.Lease) (*coordinationv1.Lease, error) {
		return leases.Create(ctx, l, metav1.CreateOptions{})
	}))
	ctx := i.t.Context()
	go func() {
		for ticker := time.NewTicker(time.Second); ; {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
			_ = renew(func(ctx context.Context, l *coordinationv1.Lease) (*coordinationv1.Lease, error) {
				return leases.Update(ctx, l, metav1.UpdateOptions{})
			})
		}
	}()
}

// block is how many pods each creates before it is the next one's turn, and how often.
func (s *stage) block(size int) (pods, rounds int) {
	if size == large {
		return s.few(32, 2), s.few(10, 1)
	}
	return s.few(100, 4), s.few(10, 1)
}

// admit creates pods of a size by so many clients at a time.
func (s *stage) admit(all []reviewed, size, clients int) {
	pods, rounds := s.block(size)
	pods = max(pods, s.few(clients, 1))
	before := map[string]scrape.Samples{}
	for round := range rounds + 1 {
		warm := round == 0
		if round == 1 {
			for _, r := range all[:2] {
				before[r.who] = r.metrics(r.webhook)
			}
		}
		for _, k := range rand.Perm(len(all)) { // whoever comes after another pays for what that one has left
			r := all[k]
			took, each := r.create(clients, pods, size)
			series := s.report.series("admission.create", "s", "who", r.who, "bytes", size, "clients", clients)
			if warm {
				series.Discarded += len(each)
				continue
			}
			series.add(each...)
			s.report.series("admission.rate", "requests/s", "who", r.who, "bytes", size, "clients", clients).add(float64(pods) / took)
		}
	}
	answered := map[string]float64{ours: float64(pods * rounds), empty: 2 * float64(pods*rounds)} // with a patch it is the same process
	for _, r := range all[:2] {
		after, labels := r.metrics(r.webhook), []any{"who", r.who, "bytes", size, "clients", clients}
		for name, metric := range map[string]string{"cpu": "process_cpu_seconds_total", "allocations": "go_memstats_mallocs_total", "allocated": "go_memstats_alloc_bytes_total"} {
			unit := map[string]string{"cpu": "s/request", "allocations": "1/request", "allocated": "bytes/request"}[name]
			s.report.series("admission."+name, unit, labels...).add((after.Sum(metric) - before[r.who].Sum(metric)) / answered[r.who])
		}
	}
	for _, r := range all {
		r.check(pods * (rounds + 1))
	}
	s.say("admission, %s, by %s: %s", kilobytes(size), many(clients), s.createRatios(size, clients))
}

// profileAdmission takes profiles of what each webhook has the API server do.
func (s *stage) profileAdmission(all []reviewed) {
	pods := s.few(2500, 4)
	for _, r := range all {
		addresses := map[string]string{}
		if r.webhook != "" {
			addresses["webhook"] = r.webhook
		}
		r.profiled("admission-"+strings.ReplaceAll(r.who, " ", "-"), addresses, func() { r.create(16, pods, small) })
		r.check(pods)
	}
}

// createRatios are for the line of progress.
func (s *stage) createRatios(size, clients int) string {
	of := func(who string) *Series {
		return s.report.find("admission.create", "who", who, "bytes", size, "clients", clients)
	}
	return fmt.Sprintf("p50 %.2f ms, %.2f x the empty webhook's; p99 %.2f ms, %.2f x; without our work %.2f x, %.2f x", of(ours).P50*1e3,
		of(ours).P50/of(empty).P50, of(ours).P99*1e3, of(ours).P99/of(empty).P99, of(patching).P50/of(empty).P50, of(patching).P99/of(empty).P99)
}

// create creates n pods, and returns the seconds that all and each have taken.
func (r reviewed) create(clients, n, size int) (took float64, each []float64) {
	r.t.Helper()
	queued := tasks(n)
	pods := make([]*corev1.Pod, n)
	for k := range queued {
		queued[k].Namespace = r.Namespace
		pods[k] = executor.Pod(sized(queued[k], size))
	}
	each = make([]float64, n)
	errs := make([]error, n)
	began := time.Now()
	concurrently(clients, n, func(_, k int) {
		asked := time.Now()
		_, errs[k] = r.airflow.CoreV1().Pods(r.Namespace).Create(r.t.Context(), pods[k], metav1.CreateOptions{})
		each[k] = time.Since(asked).Seconds()
	})
	took = time.Since(began).Seconds()
	for _, err := range errs {
		require.NoError(r.t, err)
	}
	return took, each
}

// check counts the pods, and those that are held: all of ours, and no others. Then they go.
func (r reviewed) check(n int) {
	r.t.Helper()
	list, err := r.client.CoreV1().Pods(r.Namespace).List(r.t.Context(), metav1.ListOptions{ResourceVersion: "0"})
	require.NoError(r.t, err)
	held := 0
	for k := range list.Items {
		if requeue.Held(&list.Items[k]) && slices.Contains(list.Items[k].Finalizers, requeue.Finalizer) {
			held++
		}
	}
	want := map[string]int{ours: n}[r.who]
	assert.Len(r.t, list.Items, n, "pods of "+r.who)
	require.Equal(r.t, want, held, "held pods of "+r.who)
	r.etcd.forget(r.t, r.site.key)
	r.until("the pods of "+r.who+" go", func() bool {
		list, err := r.client.CoreV1().Pods(r.Namespace).List(r.t.Context(), metav1.ListOptions{ResourceVersion: "0", Limit: 1})
		return err == nil && len(list.Items) == 0
	})
}

func many(clients int) string {
	if clients == 1 {
		return "1 client"
	}
	return strconv.Itoa(clients) + " clients"
}

func kilobytes(size int) string { return strconv.Itoa(size>>10) + " KB" }
