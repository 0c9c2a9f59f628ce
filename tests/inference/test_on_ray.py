"""Two machines of a cluster make the table that one makes, also when one of them is lost on the way."""

import math
import os
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from ecgdan_hf.cli.main import app
from ecgdan_hf.data.prepared import ray_cluster
from ecgdan_hf.data.prepared.ray_cluster import in_order_on_ray
from ecgdan_hf.data.simulate.synthetic import write_cohort
from ecgdan_hf.data.sources.ecg_folder import expand_files
from ecgdan_hf.inference import on_ray
from ecgdan_hf.inference.measured_files import Measurer
from ecgdan_hf.inference.on_ray import OnRay, device_on, workers_on
from ecgdan_hf.telemetry import import_silently

RECORDS = 24


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive") / "cohort"
    write_cohort(folder, n=RECORDS, seed=0)
    return folder


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head and a second machine, with one processor each."""
    if os.environ.get("ECGDAN_CLUSTER") != "1":
        pytest.skip("starts a Ray cluster, which takes a minute: make test-cluster")
    if sys.platform == "win32":
        pytest.skip("Ray does not support clusters on Windows")
    if find_spec("ray") is None:
        pytest.skip("needs the extra ray")
    ray = import_silently("ray")
    from ray.cluster_utils import Cluster

    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    ray.init(address=found.address, log_to_driver=False)  # before there is a machine that will be lost
    second = found.add_node(num_cpus=1)
    found.wait_for_nodes()
    yield found, second
    ray.shutdown()
    found.shutdown()


def test_a_conversion_by_the_cluster_is_that_of_one_machine(cluster: Any, archive: Path, tmp_path: Path):
    for engine in ("local", "ray"):
        command = ["data", "convert", archive, tmp_path / engine, "--keep-ids", "--engine", engine]
        command += ["--cache-dir", tmp_path / f"cache-{engine}"]
        result = CliRunner().invoke(app, [str(word) for word in command])
        assert result.exit_code == 0 and f"{RECORDS} records" in result.output, result.output
    local, ray = (sorted((tmp_path / engine / "data").iterdir()) for engine in ("local", "ray"))
    assert [file.name for file in local] == [file.name for file in ray] != []
    assert [file.read_bytes() for file in local] == [file.read_bytes() for file in ray]


def test_what_goes_wrong_on_a_machine_is_raised_here(cluster: Any):
    found = in_order_on_ray(math.sqrt, [9.0, -1.0])
    assert next(found) == 3.0
    with pytest.raises(ValueError, match="math domain error"):
        next(found)
    assert list(in_order_on_ray(math.sqrt, [])) == []


def test_a_lost_machine_loses_no_row_and_doubles_none(cluster: Any, archive: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(on_ray, "FILES_AT_ONCE", 2)
    files = expand_files(archive)
    expected = [row for batch in Measurer().batches(files) for row in batch]
    found: list[dict[str, Any]] = []
    for batch in OnRay(Measurer()).batches(files):
        if not found:
            cluster[0].remove_node(cluster[1], allow_graceful=False)
        found += batch
    pd.testing.assert_frame_equal(pd.DataFrame(found), pd.DataFrame(expected))


def test_arguments_that_do_not_fit_the_cluster_are_refused(archive: Path, tmp_path: Path):
    command = ["data", "measure", str(archive), "--out", str(tmp_path / "a.csv"), "--engine", "spark"]
    result = CliRunner().invoke(app, command)
    assert "engine: expected local or ray, got 'spark'" in str(result.exception or result.output)
    with pytest.raises(ValueError, match="num_workers: expected none with engine ray"):
        workers_on("ray", 2, 100)
    with pytest.raises(ValueError, match="device: expected auto or cpu with engine ray, got 'cuda'"):
        device_on("ray", "cuda")
    assert (workers_on("ray", None, 10**6), device_on("ray", "auto"), device_on("local", "cuda")) == (0, "cpu", "cuda")


def test_a_cluster_without_ray_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ray_cluster, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"engine: ray is not installed; pip install ecgdan-hf\[ray\]"):
        workers_on("ray", None, 3)
