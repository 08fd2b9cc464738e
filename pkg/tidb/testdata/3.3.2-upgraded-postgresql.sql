-- What `airflow db migrate` of Airflow 3.3.2 upgrades an older Airflow's tables to on PostgreSQL, without foreign keys.
-- Made by hack/airflow-ddl.sh; not edited by hand.

CREATE TABLE alembic_version (
    version_num character varying(32) NOT NULL
);

CREATE TABLE task_instance (
    task_id character varying(250) NOT NULL,
    dag_id character varying(250) NOT NULL,
    run_id character varying(250) NOT NULL,
    map_index integer DEFAULT '-1'::integer NOT NULL,
    pool character varying(256) NOT NULL,
    pool_slots integer NOT NULL,
    start_date timestamp with time zone,
    end_date timestamp with time zone,
    duration double precision,
    state character varying(20),
    try_number integer NOT NULL,
    max_tries integer DEFAULT '-1'::integer NOT NULL,
    hostname character varying(1000),
    unixname character varying(1000),
    queue character varying(256),
    priority_weight integer,
    operator character varying(1000),
    queued_dttm timestamp with time zone,
    queued_by_job_id integer,
    pid integer,
    executor_config bytea,
    updated_at timestamp with time zone,
    external_executor_id text,
    trigger_id integer,
    trigger_timeout timestamp with time zone,
    next_method character varying(1000),
    next_kwargs jsonb,
    custom_operator_name character varying(1000),
    rendered_map_index character varying(250),
    task_display_name character varying(2000),
    executor character varying(1000),
    id uuid NOT NULL,
    last_heartbeat_at timestamp with time zone,
    dag_version_id uuid,
    scheduled_dttm timestamp with time zone,
    context_carrier jsonb,
    span_status character varying(250) DEFAULT 'not_started'::character varying NOT NULL,
    retry_delay_override double precision,
    retry_reason character varying(500)
);

ALTER TABLE ONLY alembic_version
    ADD CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num);

ALTER TABLE ONLY task_instance
    ADD CONSTRAINT task_instance_composite_key UNIQUE (dag_id, task_id, run_id, map_index);

ALTER TABLE ONLY task_instance
    ADD CONSTRAINT task_instance_pkey PRIMARY KEY (id);

CREATE INDEX ti_dag_run ON task_instance USING btree (dag_id, run_id);

CREATE INDEX ti_dag_state ON task_instance USING btree (dag_id, state);

CREATE INDEX ti_dag_version_id ON task_instance USING btree (dag_version_id);

CREATE INDEX ti_heartbeat ON task_instance USING btree (last_heartbeat_at);

CREATE INDEX ti_pool ON task_instance USING btree (pool, state, priority_weight);

CREATE INDEX ti_state ON task_instance USING btree (state);

CREATE INDEX ti_state_lkp ON task_instance USING btree (dag_id, task_id, run_id, state);

CREATE INDEX ti_trigger_id ON task_instance USING btree (trigger_id);

INSERT INTO alembic_version (version_num) VALUES ('d2f4e1b3c5a7');
