package scenarios

import (
	"database/sql"
	"strings"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/airflow-requeue/airflow-requeue/internal/world"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// databaseGone takes the table of task instances away, from us and from Airflow; back puts it back.
func (s *stage) databaseGone() (back func()) {
	s.T.Helper()
	db, err := sql.Open("sqlite", "file:"+strings.TrimPrefix(s.DB.URL(), "sqlite:///")+"?_pragma=busy_timeout(10000)")
	require.NoError(s.T, err)
	s.T.Cleanup(func() { _ = db.Close() })
	_, err = db.ExecContext(s.T.Context(), "ALTER TABLE task_instance RENAME TO task_instance_gone")
	require.NoError(s.T, err)
	return func() {
		s.interrupted = true
		_, err := db.ExecContext(s.T.Context(), "ALTER TABLE task_instance_gone RENAME TO task_instance")
		require.NoError(s.T, err)
	}
}

// leaderReady is what the Lease says of the watcher that leads.
func (s *stage) leaderReady() bool {
	lease, err := s.Client.CoordinationV1().Leases(s.Namespace).Get(s.T.Context(), world.Installation, metav1.GetOptions{})
	return assert.NoError(s.T, err) && lease.Labels[requeue.LabelReady] == "true"
}
