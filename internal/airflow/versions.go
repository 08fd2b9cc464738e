// Package airflow runs the real Airflow, from PyPI: its own KubernetesExecutor and scheduler, on a metadata database that
// its own migration made.
package airflow

// Version is an Airflow together with its cncf.kubernetes provider.
type Version struct {
	Airflow  string
	Provider string
	// Until is the day after which nothing on PyPI counts: all else in the set is as it was then, since what came later
	// may not fit.
	Until string
	// Also are further packages to install.
	Also []string
	// FailsDeletedPending says that the executor takes a pod for failed that is deleted while it is Pending. Others wait for
	// task_queued_timeout.
	FailsDeletedPending bool
	// Requeues says that the executor has a requeue of its own (pod_launch_failure_retries).
	Requeues bool
	// DetailsLogged says that the executor logs what it saw of a failed pod.
	DetailsLogged bool
}

// Versions are those that are tested: the oldest that is supported, and the newest of each line since, with a provider of
// its time.
func Versions() []Version {
	return []Version{
		{Airflow: "2.10.4", Provider: "10.0.1", Until: "2024-12-20", FailsDeletedPending: true},
		{Airflow: "2.10.5", Provider: "10.1.0", Until: "2025-02-20", FailsDeletedPending: true},
		{Airflow: "2.11.0", Provider: "10.5.0", Until: "2025-06-10"},
		{Airflow: "3.0.6", Provider: "10.8.0", Until: "2025-09-10", DetailsLogged: true},
		{Airflow: "3.3.2", Provider: "10.25.0", Until: "2026-11-22", DetailsLogged: true, Requeues: true},
	}
}

// Newest is the newest of them.
func Newest() Version {
	versions := Versions()
	return versions[len(versions)-1]
}

// ForPostgreSQL is the version with what it takes to have its metadata database in PostgreSQL.
func (v Version) ForPostgreSQL() Version {
	v.Also = []string{"asyncpg", "psycopg2-binary"}
	return v
}

// String names a version for people.
func (v Version) String() string { return v.Airflow + " with provider " + v.Provider }
