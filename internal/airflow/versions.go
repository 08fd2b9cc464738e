// Package airflow runs the real Airflow, from PyPI: its own KubernetesExecutor and scheduler, on a metadata database that
// its own migration made.
package airflow

import (
	"fmt"
	"strings"

	"github.com/airflow-requeue/airflow-requeue/pkg/tidb"
)

// Version is an Airflow together with its cncf.kubernetes provider.
type Version struct {
	Airflow string
	// Provider is empty where only Airflow's own tables matter.
	Provider string
	// Until is the day after which nothing on PyPI counts: all else in the set is as it was then, since what came later
	// may not fit.
	Until string
	// Database is what it has its metadata database in. MariaDB stands in for MySQL.
	Database tidb.Dialect
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
		{Airflow: "2.10.4", Provider: "10.0.1", Until: "2024-12-20", Database: tidb.SQLite, FailsDeletedPending: true},
		{Airflow: "2.10.5", Provider: "10.1.0", Until: "2025-02-20", Database: tidb.SQLite, FailsDeletedPending: true},
		{Airflow: "2.11.0", Provider: "10.5.0", Until: "2025-06-10", Database: tidb.MySQL},
		{Airflow: "3.0.6", Provider: "10.8.0", Until: "2025-09-10", Database: tidb.SQLite, DetailsLogged: true},
		{Airflow: "3.3.2", Provider: "10.25.0", Until: "2026-11-22", Database: tidb.PostgreSQL, DetailsLogged: true, Requeues: true},
	}
}

// Newest is the newest of them.
func Newest() Version {
	versions := Versions()
	return versions[len(versions)-1]
}

// Find is a version by Airflow's own, with its metadata database in another kind of server: one that is tested, or one of
// which hack/airflow-ddl.sh takes the tables.
func Find(airflow, database string) (Version, error) {
	known := append(Versions(),
		Version{Airflow: "2.11.2", Until: "2026-04-01"},
		Version{Airflow: "3.1.8", Until: "2026-04-01"},
		Version{Airflow: "3.2.2", Until: "2026-06-20"},
		Version{Airflow: "3.4.0b2", Until: "2026-10-28"},
	)
	for _, version := range known {
		for _, dialect := range []tidb.Dialect{tidb.PostgreSQL, tidb.MySQL, tidb.SQLite} {
			if version.Airflow == airflow && strings.EqualFold(database, string(dialect)) {
				version.Database = dialect
				return version, nil
			}
		}
	}
	return Version{}, fmt.Errorf("finding Airflow %s for %s: such a version is not known", airflow, database)
}

// packages are what is installed: both, and the drivers for its database.
func (v Version) packages() []string {
	packages := []string{"apache-airflow==" + v.Airflow}
	if v.Provider != "" {
		packages = append(packages, "apache-airflow-providers-cncf-kubernetes=="+v.Provider)
	}
	switch v.Database {
	case tidb.PostgreSQL:
		packages = append(packages, "asyncpg", "psycopg2-binary")
	case tidb.MySQL:
		packages = append(packages, "pymysql")
		if !strings.HasPrefix(v.Airflow, "2.") { // Airflow 3 does not start without mysqlclient, which wants a C compiler
			packages = append(packages, "aiomysql", "mysqlclient")
		}
	case tidb.SQLite: // Python has its driver
	}
	return packages
}

// String names a version for people.
func (v Version) String() string { return v.Airflow + " with provider " + v.Provider }
