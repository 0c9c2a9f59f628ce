"""Fuzzes everything but the readers of ECG files: does each case end as a result or as one line?

    python tests/benchmarks/bench_fuzz.py --cases 80000 [--targets recipe,flags] [--seed 0]

Targets: recipes, flags of the command line, tables of outcomes, of records and of covariates, hospital tables,
checkpoints (both configurations, weights, seen records), results, statements of authors, folds, and the feature
extractor. Files are whole ones changed at random by the mutations of `bench_mutations`, or with values in the place of
others; arrays and flags are drawn. Each case runs in a child process, which is replaced if it is lost or takes too
long. Counted are results, refusals (ValueError or OSError with one line; of the command line exit code 1 or 2),
foreign exceptions, and lost processes. `bench_mutations.py` fuzzes the readers.
"""

import argparse
import contextlib
import io
import json
import random
import re
import shutil
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import torch
import yaml
from bench_mutations import mutated
from fixtures.training_runs import TINY_MODEL
from fixtures.write_workbook import workbook

from ecgdan_hf.cli.main import app
from ecgdan_hf.data.simulate.synthetic import make_signal
from ecgdan_hf.data.sources.csv_table import read_csv_table, read_outcomes
from ecgdan_hf.data.sources.hospital_tables import read_hospital_table
from ecgdan_hf.evaluation.folds import parse_folds, recipe_of
from ecgdan_hf.evaluation.report.tripod import read_author_statements
from ecgdan_hf.evaluation.result import Result
from ecgdan_hf.evaluation.seen_records import SeenRecords
from ecgdan_hf.inference.checkpoints import load_checkpoint
from ecgdan_hf.inference.covariates import Covariates
from ecgdan_hf.model.configuration_ecgdan import STANDARD_LEADS, EcgDanConfig, EcgDanSurvivalConfig
from ecgdan_hf.model.feature_extraction_ecgdan import EcgDanFeatureExtractor
from ecgdan_hf.model.modeling_ecgdan import EcgDanForSurvival
from ecgdan_hf.training.arguments import fields
from ecgdan_hf.training.arguments.command import run_safely
from ecgdan_hf.training.arguments.options import check_options, resolve

WAIT_SECONDS = 120.0
MAX_LETTERS = 1200
RECIPES = Path(fields.__file__).parents[1] / "recipes"
KINDS = {
    "pretrain": fields.PretrainArguments, "finetune": fields.FinetuneArguments, "probe": fields.ProbeArguments,
    "evaluate": fields.EvaluateArguments, "recalibrate": fields.RecalibrateArguments, "ablate": fields.AblateArguments,
    "sanity": fields.SanityArguments,
}  # fmt: skip
VERBS = [*KINDS, "predict", "explain", "bundle", "export", "zero-shot", "data check", "data measure", "data convert"]
VERBS += ["data outcomes", "data synthetic", "data plasmode", "study events"]
ODD = (None, True, "", "x", -1, 0, 1, 2, 1e308, -1e308, float("nan"), float("inf"), 10**30, 1.5, [], {}, [1], "1-3")
ODD += ({"a": 1}, "nan", "../..", "=1+1", "\u0000", "é" * 300, [[[]]], "1e-3", "2026-01-01", "9" * 400)
OUTCOMES = "record_id,event,time\n" + "".join(f"{i},{i % 3 == 0:d},{0.5 + i / 7:.3f}\n" for i in range(12))
HOSPITAL = "EKG-Nr;Ereignis;Datum;letzter Kontakt;Tage\n" + "".join(
    f"{i:05};{i % 2};{1 + i:02}.03.2019;{1 + i:02}.11.2021;{300 + i},5\n" for i in range(12)
)
RECORDS = "file,record_id,patient_id,fold,age,sex,labels,event,time\n" + "".join(
    f"r{i}.npz,{i},p{i // 2},{i % 10 + 1},{40 + i},{('male', 'female')[i % 2]},MI;AF,{i % 2},{1 + i}\n"
    for i in range(12)
)
STATEMENTS = "17: Approved by the committee.\n18a: No funding.\n"


@dataclass(frozen=True)
class Ending:
    """How a case ended: `result`, `refusal`, `foreign` or `lost`, and what was said."""

    number: int
    target: str
    ending: str
    said: str


# ---- targets: each draws one case in a folder and runs it


def changed(content: bytes | str, draw: random.Random) -> bytes:
    given = content.encode() if isinstance(content, str) else content
    return mutated(given, draw)[0]


def odd_values(mapping: dict[str, Any], draw: random.Random) -> dict[str, Any]:
    """A mapping with one to three values of another kind, or names that do not exist."""
    found = dict(mapping)
    for _ in range(draw.choice((1, 1, 2, 3))):
        name = draw.choice([*found, "no such name"]) if found else "x"
        found[name] = draw.choice(ODD)
    return found


def recipe(folder: Path, draw: random.Random) -> None:
    kind = draw.choice(list(KINDS.values()))
    whole = draw.choice(sorted(RECIPES.glob("*.yaml"))).read_text(encoding="utf-8")
    path = folder / "recipe.yaml"
    if draw.random() < 0.5:
        path.write_bytes(changed(whole, draw))
    else:
        path.write_text(yaml.safe_dump(odd_values(yaml.safe_load(whole), draw)), encoding="utf-8")
    check_options(resolve(kind, path, {}))


def begun_recipe(folder: Path, draw: random.Random) -> None:
    (folder / "recipe.yaml").write_bytes(changed("data: csv\ndata_dir: x\ntrain_folds: 1-8\nseed: 0\n", draw))
    found = recipe_of(str(folder))
    parse_folds((found or {}).get("train_folds"), "train_folds")


def folds(folder: Path, draw: random.Random) -> None:
    text = "".join(draw.choice("0123456789-,[] ;.ax") for _ in range(draw.randint(0, 12)))
    parse_folds(draw.choice([*ODD, text, text, text]), "test_folds")


def flags(folder: Path, draw: random.Random) -> None:
    """A command line with options of one verb and values of any kind; its data do not exist."""
    verb = draw.choice(VERBS)
    words = [*verb.split(), *(str(folder / "none") for _ in range(draw.choice((0, 1, 2))))]
    known = options_of(verb)
    for _ in range(draw.randint(0, 5)):
        words.append(draw.choice(known))
        if draw.random() < 0.8:
            words.append(str(draw.choice((*ODD, folder / "out", "a=b", "csv", "survival", "1-8"))).replace("\0", "0"))
    words += ["--output-dir", str(folder / "out")] if "--output-dir" in known and draw.random() < 0.5 else []
    out, error = io.StringIO(), io.StringIO()
    old, sys.argv = sys.argv, ["ecgdan", *words]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
            code = run_safely(app)
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        sys.argv = old
    said = error.getvalue()
    if code not in (0, 1, 2) or "Traceback" in said:
        raise RuntimeError(f"exit code {code} of {words}: {said[-300:]}")
    if code:
        raise ValueError(said.strip().splitlines()[-1])


_options: dict[str, list[str]] = {}


def options_of(verb: str) -> list[str]:
    if verb not in _options:
        out = io.StringIO()
        old, sys.argv = sys.argv, ["ecgdan", *verb.split(), "--help"]
        with contextlib.suppress(SystemExit), contextlib.redirect_stdout(out):
            app()
        sys.argv = old
        _options[verb] = sorted({*re.findall(r"--[a-z][a-z0-9-]+", out.getvalue())} - {"--push-to-hub", "--n"})
    return _options[verb]


def outcomes(folder: Path, draw: random.Random) -> None:
    (folder / "outcomes.csv").write_bytes(changed(OUTCOMES, draw))
    read_outcomes(folder / "outcomes.csv")


def hospital_table(folder: Path, draw: random.Random) -> None:
    if draw.random() < 0.2:
        (folder / "table.xlsx").write_bytes(changed(_shared["workbook"], draw))
        read_hospital_table(folder / "table.xlsx")
    else:
        (folder / "table.csv").write_bytes(changed(HOSPITAL, draw))
        names = {"record_id": "EKG-Nr", "event": "Ereignis", "ecg_date": "Datum", "last_contact": "letzter Kontakt"}
        read_outcomes(folder / "table.csv", draw.choice((names, names, odd_values(names, draw))))


def records(folder: Path, draw: random.Random) -> None:
    (folder / "table.csv").write_bytes(changed(RECORDS, draw))
    read_csv_table(folder)


def covariates(folder: Path, draw: random.Random) -> None:
    path = folder / "covariates.csv"
    path.write_bytes(
        changed("record_id,age,sex,bmi,stage\n" + "".join(f"{i},{40 + i},male,2{i},II\n" for i in range(9)), draw)
    )
    table = read_hospital_table(path)
    names = [
        draw.choice(("age", "sex", "bmi", "bmi?", "stage=II", "age>60", "x", "", "=", "age=", "?")) for _ in range(3)
    ]
    expanded = Covariates.expanded(table, names, draw.choice(("mean", "indicator", "refuse", "x")))
    expanded.matrix(table)


def checkpoint(folder: Path, draw: random.Random) -> None:
    shutil.copytree(_shared["checkpoint"], folder, dirs_exist_ok=True)
    path = folder / draw.choice(("config.json", "config.json", "preprocessor_config.json", "model.safetensors"))
    if path.suffix == ".json" and draw.random() < 0.6:
        path.write_text(json.dumps(odd_values(json.loads(path.read_text()), draw)), encoding="utf-8")
    else:
        path.write_bytes(changed(path.read_bytes(), draw))
    load_checkpoint(folder)


def seen_records(folder: Path, draw: random.Random) -> None:
    (folder / "seen_records.npz").write_bytes(changed(_shared["seen"].read_bytes(), draw))
    SeenRecords.read(str(folder))


def result(folder: Path, draw: random.Random) -> None:
    metrics = {"task": "survival", "num_records": {"train": 3}, "test": {"num_events": 1}}
    whole = Result("finetune", metrics).to_json()
    (folder / "metrics.json").write_bytes(changed(whole, draw))
    Result.read(folder)


def statements(folder: Path, draw: random.Random) -> None:
    (folder / "statements.yaml").write_bytes(changed(STATEMENTS, draw))
    read_author_statements(folder / "statements.yaml")


def extractor(folder: Path, draw: random.Random) -> None:
    """Signals of any shape and value; what comes out is finite."""
    rng = np.random.default_rng(draw.randrange(2**32))
    shape = draw.choice(
        [(12, 500), (12, 5000), (1, 500), (3, 700), (12, 0), (0, 500), (12, 1), (500,), (2, 12, 500), ()]
    )
    shape = draw.choice([shape, (12, 1000), (12, draw.randint(1, 3000))])
    signal: Any = rng.normal(scale=draw.choice((1e-9, 0.3, 0.3, 0.3, 5, 1e4, 1e300)), size=shape)
    if draw.random() < 0.5:
        signal = _shared["ecg"][:, : draw.randint(1000, 5000)].copy()
    for _ in range(draw.choice((0, 0, 1, 3))):
        if signal.size:
            value = draw.choice((np.nan, np.inf, -np.inf, 0.0, 1e38, -32768.0))
            signal[rng.random(signal.shape) < draw.choice((0.001, 0.3, 1.0))] = value
    kinds = (lambda x: x, lambda x: x, lambda x: x.astype(np.float32), lambda x: x.tolist(), lambda x: x.astype(str))
    with np.errstate(all="ignore"):
        signal = draw.choice(
            [*kinds, *kinds, lambda x: x.astype(complex), lambda x: x > 0, lambda x: x.astype(object)]
        )(signal)
    leads: Any = draw.choice(
        (list(STANDARD_LEADS), list(STANDARD_LEADS), list(STANDARD_LEADS)[: shape[0] if shape else 1])
    )
    odd = ([None, [], ["I"] * 12, ["x"] * 12, "I", 5, [1, 2], [None] * 12],
           [50, 1e-3, 1e9, 0, -5, np.nan, None, "500", "x", [500], [], 10**400, True],
           ["uV", "V", "x", None, 5, ["mV"], []])  # fmt: skip
    usual = (leads, 500, "mV")
    leads, rate, unit = (
        draw.choice(some) if draw.random() < 0.15 else one for one, some in zip(usual, odd, strict=True)
    )
    found = draw.choice(_shared["extractors"])(
        signal, sampling_rate=rate, unit=unit, lead_names=leads, return_tensors="np"
    )
    if not np.isfinite(found["input_values"]).all():
        raise RuntimeError("input values that are not finite")


TARGETS: dict[str, Callable[[Path, random.Random], None]] = {
    each.__name__: each
    for each in (recipe, begun_recipe, folds, flags, outcomes, hospital_table, records, covariates, checkpoint,
                 seen_records, result, statements, extractor)
}  # fmt: skip
_shared: dict[str, Any] = {}


def prepare(folder: Path) -> None:
    """The whole files of targets that need more than a text."""
    torch.manual_seed(0)
    config = EcgDanSurvivalConfig(**TINY_MODEL)
    model = EcgDanForSurvival(config)
    model.fit_baseline(torch.zeros(40), (torch.arange(40) % 4 == 0).float(), torch.linspace(0.1, 12.0, 40))
    model.save_pretrained(folder / "checkpoint")
    EcgDanFeatureExtractor(**config.signal_contract).save_pretrained(folder / "checkpoint")
    digests = np.arange(40, dtype=np.uint64).reshape(10, 4)
    SeenRecords(bytes(16), digests, digests[:2], True).write(folder)
    rows: list[list[object]] = [line.split(",") for line in OUTCOMES.splitlines()]
    _shared["workbook"] = workbook(folder / "table.xlsx", rows).read_bytes()
    _shared.update(checkpoint=folder / "checkpoint", seen=folder / "seen_records.npz")
    _shared["ecg"] = make_signal(0.0, 95.0, 70.0, 1)
    about = {"sampling_rate": 100, "num_samples": 512}
    configs = (EcgDanConfig(**about), EcgDanConfig(**about, input_kind="rhythm", normalization="global"))
    _shared["extractors"] = [EcgDanFeatureExtractor(**config.signal_contract) for config in configs]


# ---- cases in a child process


def run_case(number: int, seed: int, target: str, folder: Path) -> Ending:
    """Runs one case, always the same for a number and a seed."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    draw = random.Random(f"{seed}/{target}/{number}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            TARGETS[target](folder, draw)
            return Ending(number, target, "result", "")
        except (ValueError, OSError) as error:
            said, kind = str(error), type(error)
            ours = kind in (ValueError, OSError, FileNotFoundError, FileExistsError, IsADirectoryError)
            is_line = "\n" not in said and 0 < len(said) <= MAX_LETTERS
            return Ending(
                number, target, "refusal" if ours and is_line else "foreign", f"{kind.__name__}: {said[:400]}"
            )
        except BaseException as error:
            return Ending(number, target, "foreign", f"{type(error).__name__}: {str(error)[:400]}")


def _work(line: Connection, seed: int, folder: Path) -> None:
    for number, target in iter(line.recv, None):
        line.send(run_case(number, seed, target, folder))


def endings(numbers: range, seed: int, targets: list[str], folder: Path) -> Iterator[Ending]:
    """Runs cases of the targets in turn in a child, which is replaced if a case takes it along."""
    context, child, line = get_context("fork"), None, None
    for number in numbers:
        target = targets[number % len(targets)]
        if child is None or line is None:
            line, other = context.Pipe()
            child = context.Process(target=_work, args=(other, seed, folder), daemon=False)
            child.start()
            other.close()
        line.send((number, target))
        try:
            if not line.poll(WAIT_SECONDS):
                raise EOFError("no answer")
            yield line.recv()
        except EOFError as error:
            child.kill()
            child.join()
            yield Ending(number, target, "lost", f"exit code {child.exitcode} {error}")
            child = None
    if child is not None and line is not None:
        line.send(None)
        child.join()


def main() -> None:
    """Runs the cases and prints what became of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=80_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first case, to see one again")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--targets", help="names, separated by commas; default: all")
    parser.add_argument("--out", type=Path, help="file for the counts, rewritten every thousand cases")
    asked = parser.parse_args()
    targets, started = asked.targets.split(",") if asked.targets else list(TARGETS), time.monotonic()
    counts: Counter[tuple[str, str]] = Counter()
    with tempfile.TemporaryDirectory() as work:
        prepare(Path(work))
        for found in endings(range(asked.first, asked.first + asked.cases), asked.seed, targets, Path(work) / "case"):
            counts[found.target, found.ending] += 1
            if found.ending in ("foreign", "lost"):
                print(json.dumps(asdict(found)), flush=True)
            if asked.out and sum(counts.values()) % 1000 == 0:
                asked.out.write_text(summary(counts), encoding="utf-8")
    print(f"{summary(counts)}\n{(time.monotonic() - started) / 60:.1f} minutes")
    sys.exit(any(ending in ("foreign", "lost") for _, ending in counts))


def summary(counts: Counter[tuple[str, str]]) -> str:
    targets = {target: {e: n for (t, e), n in counts.items() if t == target} for target, _ in counts}
    return json.dumps({"cases": sum(counts.values()), **targets}, indent=1)


if __name__ == "__main__":
    main()
