"""Writes what the real KubernetesJobWatcher puts in its queue for the events in events.json: see README.md."""

import json
import logging
import sys
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

from airflow.providers.cncf.kubernetes.executors.kubernetes_executor_utils import KubernetesJobWatcher
from airflow.providers.cncf.kubernetes.kube_config import KubeConfig
from airflow.providers.cncf.kubernetes.pod_generator import PodGenerator
from airflow.providers_manager import ProvidersManager

HERE = Path(__file__).parent


class Queue(list):
    put = list.append


def seen(case):
    raw = {
        "metadata": {
            "name": "etl-load-k3v9x0a7",
            "namespace": "airflow",
            "resourceVersion": "7",
            "labels": {"airflow-worker": "17", **case["labels"]},
            "annotations": {"dag_id": "etl", "task_id": "load", "run_id": "run", "try_number": "2"},
        },
        "spec": {"containers": [{"name": "base"}]},
        "status": case["status"],
    }
    if case["deleting"]:
        raw["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    pod = PodGenerator.deserialize_model_dict(raw)
    queue = Queue()
    KubernetesJobWatcher.process_status(
        SimpleNamespace(log=logging.getLogger("silent"), watcher_queue=queue, kube_config=KubeConfig()),
        pod_name=pod.metadata.name,
        namespace=pod.metadata.namespace,
        status=pod.status.phase,
        annotations=pod.metadata.annotations,
        resource_version=pod.metadata.resource_version,
        event={"type": case["type"], "object": pod, "raw_object": raw},
    )
    assert len(queue) <= 1, queue
    for watch in queue:
        state, failure = watch[2], watch[5] if len(watch) > 5 else None
        return {"state": None if state is None else str(state), "failure": failure}
    return "nothing"


def main():
    logging.getLogger("silent").setLevel(logging.CRITICAL)
    # Every command of Airflow's does this first. Without it Airflow 2 knows no default of a provider.
    ProvidersManager().initialize_providers_configuration()
    provider = version("apache-airflow-providers-cncf-kubernetes")
    cases = json.loads((HERE / "events.json").read_text())
    out = HERE / f"seen-{provider}.json"
    out.write_text(json.dumps({case["case"]: seen(case) for case in cases}, indent=1) + "\n")
    print(f"{out.name}: {len(cases)} events", file=sys.stderr)


if __name__ == "__main__":
    main()
