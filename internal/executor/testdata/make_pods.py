"""Writes the pods that the real KubernetesExecutor makes: see README.md."""

import json
import sys
import uuid
from datetime import datetime, timezone
from pathlib import Path
from unittest import mock

from airflow.providers.cncf.kubernetes import kubernetes_helper_functions as helpers
from airflow.providers.cncf.kubernetes.pod_generator import PodGenerator
from airflow.version import version
from kubernetes.client import models as k8s

HERE = Path(__file__).parent
SECRET = "not a secret: signs the tokens of tests and of the demo, which nobody verifies"


def airflow2_args(case):
    from airflow.models.taskinstance import TaskInstance

    return TaskInstance.generate_command(
        case["dag_id"],
        case["task_id"],
        case["run_id"],
        local=True,
        file_path=f"DAGS_FOLDER/{case['dag_id']}.py",
        map_index=case["map_index"],
    )


def token(case):
    from airflow.api_fastapi.auth import tokens

    generator = tokens.JWTGenerator(
        secret_key=SECRET, private_key=None, audience="urn:airflow.apache.org:task", valid_for=0, issuer=None
    )
    queued_at = datetime.fromisoformat(case["queued_at"])
    with (
        mock.patch.object(tokens, "datetime", **{"now.return_value": queued_at}),
        mock.patch.object(tokens.uuid, "uuid4", return_value=uuid.UUID(case["token_id"])),
    ):
        return generator.generate(extras={"sub": case["id"], "scope": "workload"}, valid_for=600.0)


def airflow3_args(case):
    from airflow.executors import workloads
    from airflow.executors.workloads.base import BundleInfo
    from airflow.providers.cncf.kubernetes.pod_generator import workload_to_command_args

    mapped = f"map_index={case['map_index']}/" if case["map_index"] >= 0 else ""
    return workload_to_command_args(
        workloads.ExecuteTask(
            token=token(case),
            dag_rel_path=Path(f"{case['dag_id']}.py"),
            bundle_info=BundleInfo(name="dags-folder"),
            log_path=f"dag_id={case['dag_id']}/run_id={case['run_id']}/task_id={case['task_id']}/"
            f"{mapped}attempt={case['try_number']}.log",
            ti=workloads.TaskInstanceDTO(
                id=case["id"],
                dag_version_id=case["dag_version_id"],
                task_id=case["task_id"],
                dag_id=case["dag_id"],
                run_id=case["run_id"],
                try_number=case["try_number"],
                map_index=case["map_index"],
                context_carrier={},
                queue="default",
                pool_slots=1,
                priority_weight=1,
            ),
        )
    )


def pod(case):
    args = airflow2_args(case) if version.startswith("2.") else airflow3_args(case)
    override = None
    if case["annotations"]:
        override = k8s.V1Pod(metadata=k8s.V1ObjectMeta(annotations=case["annotations"]))
    with mock.patch.object(helpers, "rand_str", return_value=case["suffix"]):
        name = helpers.create_unique_id(case["dag_id"], case["task_id"])
    made = PodGenerator.construct_pod(
        namespace=case["namespace"],
        scheduler_job_id=case["job_id"],
        pod_id=name,
        dag_id=case["dag_id"],
        task_id=case["task_id"],
        kube_image=case["image"] or None,
        try_number=case["try_number"],
        map_index=case["map_index"],
        date=None,
        run_id=case["run_id"],
        args=args,
        pod_override_object=override,
        base_worker_pod=PodGenerator.deserialize_model_file(str(HERE.parent / "pod_template.yaml")),
        with_mutation_hook=True,
    )
    return PodGenerator.serialize_pod(made)


def main():
    cases = json.loads((HERE / "tasks.json").read_text())
    golden = {case["case"]: pod(case) for case in cases}
    out = HERE / f"pods-{version}.json"
    out.write_text(json.dumps(golden, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
    print(f"{out.name}: {len(golden)} pods", file=sys.stderr)


if __name__ == "__main__":
    main()
