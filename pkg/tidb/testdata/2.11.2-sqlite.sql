-- What `airflow db migrate` of Airflow 2.11.2 makes on SQLite, without foreign keys.
-- Made by hack/airflow-ddl.sh; not edited by hand.

CREATE TABLE task_instance (
	task_id VARCHAR(250) NOT NULL,
	dag_id VARCHAR(250) NOT NULL,
	run_id VARCHAR(250) NOT NULL,
	map_index INTEGER DEFAULT -1 NOT NULL,
	start_date TIMESTAMP,
	end_date TIMESTAMP,
	duration FLOAT,
	state VARCHAR(20),
	try_number INTEGER,
	max_tries INTEGER DEFAULT -1,
	hostname VARCHAR(1000),
	unixname VARCHAR(1000),
	job_id INTEGER,
	pool VARCHAR(256) NOT NULL,
	pool_slots INTEGER NOT NULL,
	queue VARCHAR(256),
	priority_weight INTEGER,
	operator VARCHAR(1000),
	custom_operator_name VARCHAR(1000),
	queued_dttm TIMESTAMP,
	queued_by_job_id INTEGER,
	pid INTEGER,
	executor VARCHAR(1000),
	executor_config BLOB,
	updated_at TIMESTAMP,
	rendered_map_index VARCHAR(250),
	external_executor_id VARCHAR(250),
	trigger_id INTEGER,
	trigger_timeout DATETIME,
	next_method VARCHAR(1000),
	next_kwargs JSON,
	task_display_name VARCHAR(2000),
	CONSTRAINT task_instance_pkey PRIMARY KEY (dag_id, task_id, run_id, map_index)
);

CREATE INDEX ti_dag_run ON task_instance (dag_id, run_id);

CREATE INDEX ti_dag_state ON task_instance (dag_id, state);

CREATE INDEX ti_job_id ON task_instance (job_id);

CREATE INDEX ti_pool ON task_instance (pool, state, priority_weight);

CREATE INDEX ti_state ON task_instance (state);

CREATE INDEX ti_state_lkp ON task_instance (dag_id, task_id, run_id, state);

CREATE INDEX ti_trigger_id ON task_instance (trigger_id);

CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL,
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);

INSERT INTO alembic_version (version_num) VALUES ('5f2621c13b39');
