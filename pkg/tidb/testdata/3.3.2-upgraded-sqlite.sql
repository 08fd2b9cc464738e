-- What `airflow db migrate` of Airflow 3.3.2 upgrades an older Airflow's tables to on SQLite, without foreign keys.
-- Made by hack/airflow-ddl.sh; not edited by hand.

CREATE TABLE "task_instance" (
	task_id VARCHAR(250) NOT NULL,
	dag_id VARCHAR(250) NOT NULL,
	run_id VARCHAR(250) NOT NULL,
	map_index INTEGER DEFAULT '-1' NOT NULL,
	pool VARCHAR(256) NOT NULL,
	pool_slots INTEGER NOT NULL,
	start_date TIMESTAMP,
	end_date TIMESTAMP,
	duration FLOAT,
	state VARCHAR(20),
	try_number INTEGER NOT NULL,
	max_tries INTEGER DEFAULT '-1' NOT NULL,
	hostname VARCHAR(1000),
	unixname VARCHAR(1000),
	queue VARCHAR(256),
	priority_weight INTEGER,
	operator VARCHAR(1000),
	queued_dttm TIMESTAMP,
	queued_by_job_id INTEGER,
	pid INTEGER,
	executor_config BLOB,
	updated_at TIMESTAMP,
	external_executor_id TEXT,
	trigger_id INTEGER,
	trigger_timeout TIMESTAMP,
	next_method VARCHAR(1000),
	next_kwargs JSON,
	custom_operator_name VARCHAR(1000),
	rendered_map_index VARCHAR(250),
	task_display_name VARCHAR(2000),
	executor VARCHAR(1000),
	id CHAR(32) NOT NULL,
	last_heartbeat_at TIMESTAMP,
	dag_version_id CHAR(32),
	scheduled_dttm TIMESTAMP,
	context_carrier JSON,
	span_status VARCHAR(250) DEFAULT 'not_started' NOT NULL, retry_delay_override FLOAT, retry_reason VARCHAR(500),
	CONSTRAINT task_instance_pkey PRIMARY KEY (id),
	CONSTRAINT task_instance_composite_key UNIQUE (dag_id, task_id, run_id, map_index)
);

CREATE INDEX ti_dag_run ON task_instance (dag_id, run_id);

CREATE INDEX ti_dag_state ON task_instance (dag_id, state);

CREATE INDEX ti_dag_version_id ON task_instance (dag_version_id);

CREATE INDEX ti_heartbeat ON task_instance (last_heartbeat_at);

CREATE INDEX ti_pool ON task_instance (pool, state, priority_weight);

CREATE INDEX ti_state ON task_instance (state);

CREATE INDEX ti_state_lkp ON task_instance (dag_id, task_id, run_id, state);

CREATE INDEX ti_trigger_id ON task_instance (trigger_id);

CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL,
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);

INSERT INTO alembic_version (version_num) VALUES ('d2f4e1b3c5a7');
