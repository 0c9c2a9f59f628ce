"""The table of the superclass benchmark, from the folders of finished runs."""

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

from ecgdan_hf.evaluation.measures.classification import macro_auroc
from ecgdan_hf.evaluation.result import Result


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(Path(__file__).parent / "benchmarks")
    return importlib.import_module("bench_superclasses")


def write_run(folder: Path, noise: float, seed: int, records: int = 60) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    truth = np.random.default_rng(9).random((records, 2)) < 0.4
    table = pd.DataFrame({"record_id": range(records), "patient_id": range(records), "part": "valid"})
    for column, name in enumerate(("A", "B")):
        table[name] = truth[:, column] + noise * rng.normal(size=records)
        table[f"true_{name}"] = truth[:, column].astype(int)
    folder.mkdir()
    table.to_csv(folder / "predictions.csv", index=False)
    metrics = {"task": "classification", "num_records": {}, "num_parameters": 1_500_000, "seconds": 2.0}
    Result("finetune", metrics).write(folder)
    return table


def test_seeds_are_averaged_and_the_first_network_is_compared_with_each_other(bench: ModuleType, tmp_path: Path):
    first = [write_run(tmp_path / f"light-{seed}", 0.5, seed) for seed in range(2)]
    for seed in range(2):
        write_run(tmp_path / f"other-{seed}", 2.0, 10 + seed)
    folders = {name: [tmp_path / f"{name}-{seed}" for seed in range(2)] for name in ("light", "other")}
    runs = {name: bench.read_runs(paths) for name, paths in folders.items()}
    found = bench.summarise(runs, n=50)
    labels, names = first[0][["true_A", "true_B"]], ["A", "B"]
    expected = [macro_auroc(labels, table[names]) for table in first]
    assert found["light"]["macro_auroc_per_seed"] == pytest.approx(expected)
    assert found["light"]["mean"] == pytest.approx(np.mean(expected))
    averaged = macro_auroc(labels, (first[0][names] + first[1][names]) / 2)
    assert found["light"]["averaged_probabilities"]["estimate"] == pytest.approx(averaged)
    ahead = found["other"]["ahead"]
    assert ahead["estimate"] == pytest.approx(found["light"]["mean"] - found["other"]["mean"])
    assert ahead["low"] > 0
    assert "| other | 1.50 M | 2 |" in bench.table_text(found)


def test_networks_judged_on_different_records_are_not_compared(bench: ModuleType, tmp_path: Path):
    write_run(tmp_path / "light-0", 0.5, 0)
    write_run(tmp_path / "other-0", 0.5, 0, records=50)
    runs = {name: bench.read_runs([tmp_path / f"{name}-0"]) for name in ("light", "other")}
    with pytest.raises(ValueError, match="other: judged on other records than light"):
        bench.summarise(runs, n=5)
