"""Thirty tasks without a retry, six at a time and in the order of their numbers. Each failure raises an alert."""

import os
import time

from airflow.sdk import DAG, task


def alert(context):
    with open(os.environ["ALERTS"], "a") as alerts:
        alerts.write(context["ti"].task_id + "\n")


with DAG(
    "storm",
    schedule="@once",
    max_active_tasks=6,
    default_args={"retries": 0, "on_failure_callback": alert},
):
    for number in range(1, 31):

        @task(task_id=f"task-{number:02}", priority_weight=31 - number)
        def work():
            time.sleep(0.5)

        work()
