package tidb

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/airflow-requeue/airflow-requeue/internal/testdb"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// BenchmarkLookup reads 500 of 100,000 task instances of a real PostgreSQL, the ones of one run with 5,000 of a mapped
// task among them: what is worst for the indexes that a planner may take.
func BenchmarkLookup(b *testing.B) {
	server := testdb.PostgreSQL(b)
	for _, version := range []string{"2.10.5", "3.3.2"} {
		database := "airflow_" + version[:1]
		admin := server.Create(b, database, ddl(b, version, "postgresql"))
		id, value := "", ""
		if version == "3.3.2" {
			id, value = "id, ", "gen_random_uuid(), "
		}
		const insert = "INSERT INTO task_instance (%sdag_id, task_id, run_id, map_index, try_number, pool, pool_slots) SELECT %s"
		testdb.Execute(b, admin,
			fmt.Sprintf(insert+"'dag_' || n %% 100, 'task_' || n %% 19, 'run_' || n / 19, -1, 1, 'default_pool', 1 "+
				"FROM generate_series(1, 95000) n", id, value),
			fmt.Sprintf(insert+"'dag_0', 'mapped', 'run_0', n, 1, 'default_pool', 1 FROM generate_series(0, 4999) n", id, value),
			"ANALYZE task_instance")
		db, err := Open(b.Context(), readerURL("postgresql", server, database, ""))
		require.NoError(b, err)
		defer db.Close()

		var byKey []requeue.Ref
		for i := range MaxRefs {
			key := requeue.Key{DagID: "dag_0", TaskID: "mapped", RunID: "run_0", MapIndex: 4999 - i}
			byKey = append(byKey, requeue.Ref{Key: key})
		}
		found, err := db.Lookup(b.Context(), byKey)
		require.NoError(b, err)
		require.Len(b, found, MaxRefs)
		var byID []requeue.Ref
		for _, task := range found {
			byID = append(byID, requeue.Ref{ID: task.ID, ByID: true})
		}
		for name, refs := range map[string][]requeue.Ref{"by key": byKey, "by ID": byID, "one": byKey[:1]} {
			if name == "by ID" && db.Schema().Shape == Shape210 {
				continue
			}
			b.Run(version+"/"+name, func(b *testing.B) {
				for b.Loop() {
					_, err := db.Lookup(b.Context(), refs)
					require.NoError(b, err)
				}
			})
		}
	}
}
