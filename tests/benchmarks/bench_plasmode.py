"""Survival on real ECGs with known hazards: is what can be known found, is what cannot be known left alone?

python tests/benchmarks/bench_plasmode.py --data-dir ../shared/data/ptb-xl --output-dir runs/plasmode \
    [--scenarios default,invisible,rare] [--simulations 1,2] [--seeds 0,1] [--pretrain pretrain-rhythm] \
    [--set text_model=minilm] [--common covariates=age,sex] [--networks xresnet1d101]

Every scenario and simulation is a repeated cross-validation in a folder of its own; what is finished is not repeated.
The table says how far the network comes on the way from age and sex to the true hazard, and whether its risks hold.
"""

import argparse
from pathlib import Path
from typing import Any

from ptbxl_networks import survival_network

from ecgdan_hf.data.simulate.plasmode import SCENARIOS, simulate
from ecgdan_hf.data.sources.ptbxl import read_ptbxl
from ecgdan_hf.evaluation.protocols.held_out import AGE_SEX, ATTAINABLE
from ecgdan_hf.files import write_text
from ecgdan_hf.training.arguments.command import _parse_assignments
from ecgdan_hf.training.arguments.fields import EvaluateArguments
from ecgdan_hf.training.core.run_folder import RunFolder
from ecgdan_hf.training.studies import cross_validation

COLUMNS = (
    "scenario, simulation", "events", "model", "age and sex", "ahead of it", "ECG measurements, age and sex",
    "ahead of it", "attainable", "calibration slope", "observed / expected",
)  # fmt: skip
MEASURED = "ECG measurements, age and sex"


def arguments(given: argparse.Namespace, scenario: str, simulation: int) -> EvaluateArguments:
    """One cross-validation on freshly simulated outcomes."""
    outcomes = given.output_dir / f"{scenario}-{simulation}.csv"
    if not outcomes.is_file():
        outcomes.parent.mkdir(parents=True, exist_ok=True)
        table = simulate(read_ptbxl(given.data_dir), simulation, scenario=scenario)
        write_text(outcomes, table.to_csv(index=False))
    return EvaluateArguments(
        protocol="repeated-cv",
        recipe=given.recipe,
        data_dir=str(given.data_dir),
        labels=str(outcomes),
        pretrain=given.pretrain,
        pretrain_common=_parse_assignments(given.set, "set"),
        common={"log_with": "none", "progress": False, **_parse_assignments(given.common, "common")},
        seeds=given.seeds,
        cache_dir=given.cache_dir,
        output_dir=str(given.output_dir / f"{scenario}-{simulation}"),
    )


def interval(found: dict[str, Any] | None, signed: bool = False) -> str:
    """An estimate with its limits; a dash for none."""
    if not found or found.get("estimate") is None:
        return "-"
    form = "+.3f" if signed else ".3f"
    return f"{found['estimate']:{form}} ({found['low']:{form}} to {found['high']:{form}})"


def row(folder: Path) -> list[str]:
    """One line of the table."""
    metrics = RunFolder(folder).metrics
    models = metrics["models"]
    judged = next(iter(models.values()))
    horizon = next(iter(judged.get("horizons", {}).values()), {})
    cells = [folder.name.replace("-", ", "), str(metrics["data"]["num_events"]), interval(judged["concordance_index"])]
    for name in (AGE_SEX, MEASURED):
        other = models.get(name, {})
        cells += [interval(other.get("concordance_index")), interval(other.get("ahead"), signed=True)]
    cells.append(interval(models.get(ATTAINABLE, {}).get("concordance_index")))
    return [*cells, interval(horizon.get("calibration_slope")), interval(horizon.get("observed_over_expected"))]


def table(folders: list[Path]) -> str:
    """All finished cross-validations, as Markdown."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|" + "---|" * len(COLUMNS)]
    return "\n".join(
        [*lines, *(f"| {' | '.join(row(folder))} |" for folder in folders if RunFolder(folder).metrics is not None)]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--output-dir", type=Path, required=True)
    parser.add_argument("--scenarios", default=",".join(SCENARIOS))
    parser.add_argument("--simulations", default="1")
    parser.add_argument("--seeds", default="0-4")
    parser.add_argument("--recipe", default="finetune-survival-rhythm")
    parser.add_argument("--pretrain", help="recipe of ecgdan pretrain that every fold begins with")
    parser.add_argument("--set", action="append", default=[], help="argument of it, as key=value")
    parser.add_argument("--common", action="append", default=[], help="argument of ecgdan finetune, as key=value")
    parser.add_argument("--networks", default="", help="of the PTB-XL benchmark, to compare with")
    parser.add_argument("--cache-dir")
    given = parser.parse_args()
    networks = {name: survival_network(name) for name in given.networks.split(",") if name}
    pairs = [
        (scenario, int(number)) for scenario in given.scenarios.split(",") for number in given.simulations.split(",")
    ]
    for scenario, simulation in pairs:
        cross_validation.cross_validate(arguments(given, scenario, simulation), networks, say=print)
    text = table([given.output_dir / f"{scenario}-{simulation}" for scenario, simulation in pairs])
    write_text(given.output_dir / "table.md", text + "\n")
    print(text)


if __name__ == "__main__":
    main()
