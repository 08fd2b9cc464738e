"""Schedulers of Airflow for tests: each is the real KubernetesExecutor, and what of the scheduler is needed around it.

    python driver.py SOCKET

imports Airflow once and forks a process for each connection to the Unix socket. A connection takes requests and gives
answers as lines of JSON, {"do": NAME, ...} and {"result": ...} or {"error": ...}; its process, with all that the
executor started, ends with it. The first request is "configure".

What is called of Airflow is the same in 2.10 and in 3; what differs is told apart by what there is.
"""

from __future__ import annotations

import inspect
import json
import logging
import os
import select
import signal
import socket
import sys
import time
import traceback
import uuid

from kubernetes.client import models as k8s
from sqlalchemy import insert, update
from sqlalchemy import select as query

import airflow.jobs.scheduler_job_runner as runner
from airflow import settings
from airflow.executors.executor_loader import ExecutorLoader
from airflow.jobs.job import Job
from airflow.models import DagRun
from airflow.models.dag import DagModel
from airflow.models.taskinstance import TaskInstance
from airflow.providers.cncf.kubernetes.executors import (  # noqa: F401 so that no fork has to import them
    kubernetes_executor,
    kubernetes_executor_utils,
)
from airflow.providers_manager import ProvidersManager
from airflow.utils import timezone
from airflow.utils.session import create_session
from airflow.utils.state import TaskInstanceState

try:  # Airflow 3
    from airflow.executors import workloads
    from airflow.models.dag_version import DagVersion
    from airflow.models.dagbundle import DagBundleModel
except ImportError:
    workloads = None

BUNDLE = "dags-folder"
BEAT = 0.2  # seconds between two heartbeats of an executor


def given(model, **values):
    """A statement that inserts a row, of those of the columns that this version has."""
    return insert(model.__table__).values({name: v for name, v in values.items() if name in model.__table__.columns})


def new_id():
    """A task instance's ID, as a UUID or as text: that depends on the version. None where it has none."""
    if not workloads:
        return None
    try:
        of = TaskInstance.id.type.python_type
    except NotImplementedError:
        of = str
    return of(str(uuid.uuid4()))


def same(ti):
    """The condition for a task instance."""
    names = ("dag_id", "task_id", "run_id", "map_index")
    return [getattr(TaskInstance, name) == ti[name] for name in names]


class Scheduler:
    def __init__(self):
        self.executor = self.runner = None
        self.events = []

    # What a request may ask for.

    def configure(self, environment, log):
        """Takes Airflow's configuration, as environment variables, and the file for all that is logged. Returns its PID."""
        os.environ.update(environment)
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(out, 1)
        os.dup2(out, 2)
        settings.configure_vars()
        settings.configure_adapters()
        settings.configure_orm()
        return os.getpid()

    def start(self):
        """Starts a scheduler's executor, and returns the scheduler's job ID."""
        self.executor, = ExecutorLoader.init_executors()
        with create_session() as session:
            job = Job(job_type="SchedulerJob", state="running", hostname="scheduler")
            job.start_date = job.latest_heartbeat = timezone.utcnow()
            session.add(job)
            session.flush()
            session.expunge(job)
        job.executors = [self.executor]
        self.executor.job_id = job.id
        self.executor.start()
        takes = inspect.signature(runner.SchedulerJobRunner.__init__).parameters
        self.runner = runner.SchedulerJobRunner(job, **({"executors": [self.executor]} if "executors" in takes else {}))
        return job.id

    def add(self, ti):
        """Adds a task instance with its DAG and run, not yet queued."""
        now = timezone.utcnow()
        with create_session() as session:
            of_dag = {"dag_id": ti["dag_id"]}
            if workloads:
                self._once(session, DagBundleModel, {"name": BUNDLE}, active=True)
            self._once(session, DagModel, of_dag, bundle_name=BUNDLE, fileloc="/dags/dag.py", relative_fileloc="dag.py",
                       is_paused=False, is_active=True, is_stale=False, timetable_type="", max_active_tasks=16,
                       max_consecutive_failed_dag_runs=0, has_task_concurrency_limits=False)
            version = None
            if workloads:
                version = self._once(session, DagVersion, of_dag, id=uuid.uuid4(), version_number=1, bundle_name=BUNDLE,
                                     created_at=now, last_updated=now).id
            self._once(session, DagRun, {**of_dag, "run_id": ti["run_id"]}, run_type="manual", state="running",
                       execution_date=now, run_after=now, queued_at=now, start_date=now)
            row = {"id": new_id(), "dag_version_id": version, "context_carrier": {}, "executor_config": {}}
            session.execute(given(TaskInstance, **ti, **row, pool="default_pool", pool_slots=1, queue="default",
                                  priority_weight=1, try_number=1, max_tries=0, state="scheduled", hostname="",
                                  operator="BashOperator", task_display_name=ti["task_id"], custom_operator_name=""))

    def queue(self, ti, annotations, namespace):
        """Queues a task instance, as _executable_task_instances_to_queued does, and gives it to the executor."""
        override = {"pod_override": k8s.V1Pod(metadata=k8s.V1ObjectMeta(annotations=annotations, namespace=namespace))}
        with create_session() as session:
            row = self._row(session, ti)
            row.state, row.queued_dttm = TaskInstanceState.QUEUED, timezone.utcnow()
            row.queued_by_job_id, row.executor_config = self.runner.job.id, override
            session.flush()
            if workloads:
                workload = workloads.ExecuteTask.make(row, generator=self.executor.jwt_generator)
                self.executor.queue_workload(workload, session=session)
            else:
                command = TaskInstance.generate_command(
                    row.dag_id, row.task_id, row.run_id, local=True, file_path="DAGS_FOLDER/dag.py", map_index=row.map_index)
                row.dag_run  # it is read later, by the executor's tracing
                self.executor.queue_command(row, command, priority=1, queue="default")
                session.expunge_all()

    def row(self, ti):
        """Reads a task instance."""
        with create_session() as session:
            row = self._row(session, ti)
            return {"state": row.state, "try_number": row.try_number, "hostname": row.hostname,
                    "job_id": row.queued_by_job_id}

    def claim(self, ti, hostname):
        """Is the task process that begins: it takes the row if it is queued. Says whether it has."""
        return self._set(ti, "queued", state="running", hostname=hostname, start_date=timezone.utcnow())

    def leave(self, ti, state):
        """Is the task process that ends, by success or failure, or until it is queued again."""
        return self._set(ti, "running", state=state)

    def reported(self, ti):
        """Says what the executor has reported of a task instance, in turn, and whether it still counts it as running."""
        wanted = tuple(ti[name] for name in ("dag_id", "task_id", "run_id", "map_index"))
        running = any((key.dag_id, key.task_id, key.run_id, key.map_index) == wanted for key in self.executor.running)
        return {"events": [state for of, state in self.events if of == wanted], "running": running}

    def adopt(self):
        """Has the scheduler look for those that died: that job is no longer running."""
        return self.runner.adopt_or_reset_orphaned_tasks()

    def bury(self, job_id):
        """Has a scheduler be dead, as its heartbeat would show in half a minute."""
        with create_session() as session:
            session.execute(update(Job).where(Job.id == job_id).values(state="failed"))

    def unstick(self, after):
        """Has the scheduler look for tasks that are stuck in queued for so many seconds: task_queued_timeout."""
        self.runner._task_queued_timeout = after
        with create_session() as session:
            self.runner._handle_tasks_stuck_in_queued(session=session)

    def revoke(self, ti):
        """Revokes a task instance."""
        with create_session() as session:
            self.executor.revoke_task(ti=self._row(session, ti))

    def read_log(self, ti):
        """Reads the log of a running task through the executor: messages, and the log."""
        with create_session() as session:
            row = self._row(session, ti)
            return self.executor.get_task_log(row, row.try_number)

    # The rest is its own.

    def _once(self, session, model, which, **values):
        """Reads a row, which is added where there is none."""
        found = query(model).where(*(getattr(model, name) == value for name, value in which.items()))
        if session.scalar(found) is None:
            session.execute(given(model, **which, **values))
        return session.scalar(found)

    def _row(self, session, ti):
        return session.scalars(query(TaskInstance).where(*same(ti))).one()

    def _set(self, ti, before, **values):
        with create_session() as session:
            changed = session.execute(update(TaskInstance).where(*same(ti), TaskInstance.state == before).values(values)
                                      .execution_options(synchronize_session=False))
            return changed.rowcount == 1

    def beat(self):
        """Is the scheduler's loop, with what process_executor_events makes of a failure that it does not know of."""
        if self.executor is None:
            return
        self.executor.heartbeat()
        for key, (state, _) in self.executor.get_event_buffer().items():
            of = key.dag_id, key.task_id, key.run_id, key.map_index
            self.events.append((of, str(getattr(state, "value", state))))
            if state != TaskInstanceState.FAILED or key in self.executor.running or key in self.executor.queued_tasks:
                continue
            ti = dict(zip(("dag_id", "task_id", "run_id", "map_index"), of))
            with create_session() as session:
                session.execute(
                    update(TaskInstance)
                    .where(*same(ti), TaskInstance.try_number == key.try_number,
                           TaskInstance.queued_by_job_id == self.runner.job.id,
                           TaskInstance.state.in_(["scheduled", "queued", "running"]))
                    .values(state="failed").execution_options(synchronize_session=False))


def serve(connection):
    """Answers requests until the connection ends, and beats meanwhile."""
    scheduler, unread, due = Scheduler(), b"", time.monotonic()
    while True:
        if time.monotonic() >= due:
            try:
                scheduler.beat()
            except Exception:
                logging.exception("Exception when executing SchedulerJob._run_scheduler_loop")
            due = time.monotonic() + BEAT
        if not select.select([connection], [], [], max(0, due - time.monotonic()))[0]:
            continue
        received = connection.recv(1 << 16)
        if not received:
            return
        *lines, unread = (unread + received).split(b"\n")
        for line in lines:
            request = json.loads(line)
            try:
                answer = {"result": getattr(scheduler, request.pop("do"))(**request)}
            except Exception as e:
                traceback.print_exc()
                answer = {"error": f"{type(e).__name__}: {e}"}
            connection.sendall(json.dumps(answer).encode() + b"\n")


def main(path):
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # forks are not waited for
    ProvidersManager().initialize_providers_configuration()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    print("ready", flush=True)
    while True:
        connection, _ = listener.accept()
        if os.fork():
            connection.close()
            continue
        listener.close()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()  # so that all that is forked from here can be ended at once
        try:
            serve(connection)
        finally:
            os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1])
