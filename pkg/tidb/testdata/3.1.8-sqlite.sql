-- What `airflow db migrate` of Airflow 3.1.8 makes on SQLite, without foreign keys.
-- Made by hack/airflow-ddl.sh; not edited by hand.

CREATE TABLE task_instance (
	id VARCHAR(36) NOT NULL,
	task_id VARCHAR(250) NOT NULL,
	dag_id VARCHAR(250) NOT NULL,
	run_id VARCHAR(250) NOT NULL,
	map_index INTEGER DEFAULT (-1) NOT NULL,
	start_date TIMESTAMP,
	end_date TIMESTAMP,
	duration FLOAT,
	state VARCHAR(20),
	try_number INTEGER,
	max_tries INTEGER DEFAULT (-1),
	hostname VARCHAR(1000),
	unixname VARCHAR(1000),
	pool VARCHAR(256) NOT NULL,
	pool_slots INTEGER NOT NULL,
	queue VARCHAR(256),
	priority_weight INTEGER,
	operator VARCHAR(1000),
	custom_operator_name VARCHAR(1000),
	queued_dttm TIMESTAMP,
	scheduled_dttm TIMESTAMP,
	queued_by_job_id INTEGER,
	last_heartbeat_at TIMESTAMP,
	pid INTEGER,
	executor VARCHAR(1000),
	executor_config BLOB,
	updated_at TIMESTAMP,
	rendered_map_index VARCHAR(250),
	context_carrier JSON,
	span_status VARCHAR(250) DEFAULT 'not_started' NOT NULL,
	external_executor_id VARCHAR(250),
	trigger_id INTEGER,
	trigger_timeout TIMESTAMP,
	next_method VARCHAR(1000),
	next_kwargs JSON,
	task_display_name VARCHAR(2000),
	dag_version_id CHAR(32),
	CONSTRAINT task_instance_pkey PRIMARY KEY (id),
	CONSTRAINT task_instance_composite_key UNIQUE (dag_id, task_id, run_id, map_index)
);

CREATE INDEX ti_dag_run ON task_instance (dag_id, run_id);

CREATE INDEX ti_dag_state ON task_instance (dag_id, state);

CREATE INDEX ti_heartbeat ON task_instance (last_heartbeat_at);

CREATE INDEX ti_pool ON task_instance (pool, state, priority_weight);

CREATE INDEX ti_state ON task_instance (state);

CREATE INDEX ti_state_lkp ON task_instance (dag_id, task_id, run_id, state);

CREATE INDEX ti_trigger_id ON task_instance (trigger_id);

CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL,
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);

INSERT INTO alembic_version (version_num) VALUES ('509b94a1042d');
