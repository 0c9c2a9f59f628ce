"""A tiny cohort on disk and a tiny network, so that whole runs take a second or two."""

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ecgdan_hf.data.simulate import synthetic
from ecgdan_hf.training import pretrain
from ecgdan_hf.training.arguments.fields import FinetuneArguments, PretrainArguments, ProbeArguments
from ecgdan_hf.training.arguments.options import resolve

TINY_MODEL = {
    "sampling_rate": 50,
    "num_samples": 64,
    "pad_samples": 2,
    "trunk_channels": [4, 8],
    "num_attention_heads": 2,
    "hidden_size": 16,
    "projection_hidden_size": 16,
    "projection_size": 8,
}
COMMON = {"num_proc": 1, "epochs": 2, "batch_size": 16, "log_with": "none", "progress": False}


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty-eight synthetic ECGs on disk with folds, labels and simulated follow-up; read it, do not write in it."""
    folder = tmp_path_factory.mktemp("training") / "cohort"
    synthetic.write_cohort(folder, n=48, seed=0)
    return folder


@pytest.fixture
def no_outcomes(cohort: Path, tmp_path: Path) -> Path:
    """A table of the same ECGs without their follow-up."""
    table = pd.read_csv(cohort / "table.csv", dtype={"record_id": str}).drop(columns=["event", "time", "log_hazard"])
    table["file"] = [str(cohort / name) for name in table["file"]]
    table.to_csv(tmp_path / "no_outcomes.csv", index=False)
    return tmp_path / "no_outcomes.csv"


@pytest.fixture
def unused_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def _merged(cohort: Path, cache: Path, output_dir: Path, flags: dict[str, Any]) -> dict[str, Any]:
    model = {**TINY_MODEL, **flags.pop("model", {})} if not flags.get("checkpoint") else flags.pop("model", {})
    paths = {"data": "csv", "data_dir": str(cohort), "cache_dir": str(cache), "output_dir": str(output_dir)}
    return {**COMMON, **paths, "model": model, **flags}


@pytest.fixture
def finetune_args(cohort: Path, cache: Path, tmp_path: Path) -> Callable[..., FinetuneArguments]:
    """Arguments of a tiny survival run from scratch; keywords override."""
    return _finetune_builder(cohort, cache, tmp_path)


@pytest.fixture(scope="module")
def module_finetune_args(
    cohort: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., FinetuneArguments]:
    """The same, for a run that several tests look at."""
    return _finetune_builder(cohort, cache, tmp_path_factory.mktemp("runs"))


def _finetune_builder(cohort: Path, cache: Path, folder: Path) -> Callable[..., FinetuneArguments]:
    def build(output: str = "run", **flags: Any) -> FinetuneArguments:
        flags = {"bootstrap": 20, **flags}
        start = {} if "checkpoint" in flags else {"from_scratch": True}
        return resolve(FinetuneArguments, None, _merged(cohort, cache, folder / output, {**start, **flags}))

    return build


@pytest.fixture
def pretrain_args(cohort: Path, cache: Path, tmp_path: Path) -> Callable[..., PretrainArguments]:
    """Arguments of a tiny pretraining run without text; keywords override."""

    def build(output: str = "run", **flags: Any) -> PretrainArguments:
        flags = {"text_model": "none", **flags}
        return resolve(PretrainArguments, None, _merged(cohort, cache, tmp_path / output, flags))

    return build


@pytest.fixture
def probe_args(
    pretrain_args: Callable[..., PretrainArguments], cohort: Path, cache: Path, tmp_path: Path
) -> Callable[..., ProbeArguments]:
    """Arguments of a probe of a tiny checkpoint that is pretrained for it; keywords override."""
    start = pretrain_args("pretrained", epochs=1)

    def build(**flags: Any) -> ProbeArguments:
        if "checkpoint" not in flags:
            pretrain.pretrain(start)
            flags["checkpoint"] = start.output_dir
        paths = {
            "data": "csv",
            "data_dir": str(cohort),
            "cache_dir": str(cache),
            "output_dir": str(tmp_path / "probe"),
        }
        return resolve(ProbeArguments, None, {"num_proc": 1, "bootstrap": 20, **paths, **flags})

    return build
