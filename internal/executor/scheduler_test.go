package executor

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

func testAdopt(t *testing.T, client kubernetes.Interface) {
	t.Helper()
	t.Run("a dead scheduler's pods are adopted, but for those that succeeded or are done", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, client)
		dead := w.other(3)
		dead.begun(task("running"))
		dead.create(held("pending-and-held"))
		dead.failed(task("failed"))
		dead.succeeded(task("succeeded"))
		require.NoError(t, w.MarkDone(t.Context(), dead.failed(task("done")).Name))
		w.other(4).begun(task("of-a-living-one"))

		adopted, err := w.Adopt(t.Context(), 3)

		require.NoError(t, err)
		assert.Len(t, adopted, 3)
		assert.Equal(t, map[string]string{
			"running": "17", "pending-and-held": "17", "failed": "17",
			"succeeded": "3", "done": "3", "of-a-living-one": "4",
		}, w.labels(requeue.LabelWorker))
	})
	t.Run("only the tries that the metadata database lists are adopted", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, client)
		wanted := task("wanted")
		w.other(3).begun(wanted)
		w.other(3).begun(task("other"))
		retried := task("retried")
		w.other(3).failed(retried)

		_, err := w.Adopt(t.Context(), 3, wanted.Row(), retried.NextTry(retried.QueuedAt).Row())

		require.NoError(t, err)
		assert.Equal(t, map[string]string{"wanted": "17", "other": "3", "retried": "3"}, w.labels(requeue.LabelWorker))
	})
	t.Run("of two pods of one try, one is adopted", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, client)
		first := task("load")
		w.other(3).failed(first)
		w.other(3).begun(first.Again(first.QueuedAt))

		adopted, err := w.Adopt(t.Context(), 3)

		require.NoError(t, err)
		assert.Len(t, adopted, 1)
	})
	t.Run("a pod that is gone between the list and the patch is passed over", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, client)
		pod := w.other(3).create(task("load"))
		listed, err := w.Adoptable(t.Context(), 3)
		require.NoError(t, err)
		require.Len(t, listed, 1)
		require.NoError(t, w.Delete(t.Context(), pod.Name))
		assert.ErrorContains(t, w.AdoptPod(t.Context(), &listed[0]), "adopting pod "+w.Namespace+"/"+pod.Name)
	})
	t.Run("Airflow 3.4 writes the ID from the pod's command on it", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, client)
		w.ByID = true
		task := task("load")
		dead := w.other(3)
		dead.ByID = false // its Airflow was older
		pod := dead.begun(task)

		_, err := w.Adopt(t.Context(), 3)

		require.NoError(t, err)
		live, err := w.pods().Get(t.Context(), pod.Name, metav1.GetOptions{})
		require.NoError(t, err)
		assert.Equal(t, task.ID, live.Annotations["task_instance_id"])
	})
	t.Run("Airflow 3.4 adopts no pod of another ID", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, client)
		w.ByID = true
		cleared := task("load")
		w.other(3).begun(cleared)
		cleared.ID = newUUID()

		adopted, err := w.Adopt(t.Context(), 3, cleared.Row())

		require.NoError(t, err)
		assert.Empty(t, adopted)
	})
	t.Run("succeeded pods of dead schedulers are adopted, those without any scheduler too", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, client)
		w.succeeded(task("own"))
		w.other(3).succeeded(task("of-a-dead-one"))
		w.other(4).succeeded(task("of-a-living-one"))
		w.other(3).failed(task("failed"))
		w.patch(w.succeeded(task("of-none")), `{"metadata":{"labels":{"airflow-worker":null}}}`)
		require.NoError(t, w.MarkDone(t.Context(), w.other(3).succeeded(task("done")).Name))

		adopted, err := w.AdoptSucceeded(t.Context(), 4)

		require.NoError(t, err)
		assert.Len(t, adopted, 2)
		assert.Equal(t, map[string]string{
			"own": "17", "of-a-dead-one": "17", "of-none": "17", "of-a-living-one": "4", "failed": "3", "done": "3",
		}, w.labels(requeue.LabelWorker))
	})
}

func testRevoke(t *testing.T, client kubernetes.Interface) {
	t.Helper()
	t.Run("a task's pod is marked and deleted, no other", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, client)
		stuck := held("stuck")
		pod := w.create(stuck)
		mapped := held("stuck")
		mapped.MapIndex = 0
		w.create(mapped)

		revoked, err := w.Revoke(t.Context(), stuck.Row())

		require.NoError(t, err)
		assert.Equal(t, []string{pod.Name}, revoked)
		live, err := w.pods().Get(t.Context(), pod.Name, metav1.GetOptions{})
		require.NoError(t, err)
		assert.Equal(t, "True", live.Labels[requeue.LabelHold])
		assert.NotNil(t, live.DeletionTimestamp)
		other, err := w.Find(t.Context(), mapped.Key)
		require.NoError(t, err)
		assert.Nil(t, other.DeletionTimestamp)
	})
	t.Run("a task without a pod is no error", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, client)
		w.other(3).create(task("load"))
		revoked, err := w.Revoke(t.Context(), task("load").Row())
		require.NoError(t, err)
		assert.Empty(t, revoked)
	})
	t.Run("Airflow 3.4 revokes by ID, whichever scheduler's the pod is, but not a detached one", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, client)
		w.ByID = true
		stuck := held("stuck")
		w.patch(w.create(stuck), `{"metadata":{"labels":{"airflow-worker":null}}}`)
		attached := w.other(3).create(stuck.Again(stuck.QueuedAt))
		again := stuck
		again.ID, again.Suffix = newUUID(), randomSuffix()
		w.create(again)

		revoked, err := w.Revoke(t.Context(), stuck.Row())

		require.NoError(t, err)
		assert.Equal(t, []string{attached.Name}, revoked)
	})
	t.Run("a pod is found by its task, in whatever phase and of whatever try", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, client)
		load := task("load")
		pod := w.failed(load)
		found, err := w.Find(t.Context(), load.NextTry(load.QueuedAt).Key)
		require.NoError(t, err)
		assert.Equal(t, pod.UID, found.UID)
		found, err = w.Find(t.Context(), task("other").Key)
		require.NoError(t, err)
		assert.Nil(t, found)
	})
}

func testFinish(t *testing.T, client kubernetes.Interface) {
	t.Helper()
	t.Run("a pod that succeeded is deleted, one that failed is left", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, client)
		for _, seen := range []Seen{
			{State: Succeeded, Pod: types.NamespacedName{Name: w.succeeded(task("good")).Name}},
			{State: Failed, Pod: types.NamespacedName{Name: w.failed(task("bad")).Name}},
			{State: Adopted, Pod: types.NamespacedName{Name: w.begun(task("adopted")).Name}},
		} {
			require.NoError(t, w.Finish(t.Context(), seen))
		}
		assert.Equal(t, map[string]string{"bad": "", "adopted": ""}, w.labels(requeue.LabelExecutorDone))
	})
	t.Run("a pod that is gone already is no error", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, client)
		assert.NoError(t, w.Delete(t.Context(), "gone"))
	})
	t.Run("a mark on a pod that is gone is one", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, client)
		assert.ErrorContains(t, w.MarkRevoked(t.Context(), "gone"), "labelling pod "+w.Namespace+"/gone with airflow_pod_revoked")
	})
}
