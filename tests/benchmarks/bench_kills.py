"""Kills every verb at random moments and runs it again: is the result the one of the run that nobody killed?

    python tests/benchmarks/bench_kills.py --kills 1000 [--verbs finetune,predict] [--out FILE]

Each run is a child of a process that has imported everything. It ends as by `kill -9`: before a file operation that a
seed draws (an audit hook counts them), or at a random time. A third of the runs replace an earlier result. Then the
command is repeated; where it refuses in one line, the flag that the line names is added. Every file of the result must
have the bits of the run that nobody killed, apart from dates and durations, and nothing else may be left.
With --out, an interrupted series goes on where it stopped.
"""

import argparse
import contextlib
import hashlib
import importlib
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from fixtures.danet_arguments import TINY_DANET
from fixtures.kills import KILLED, die_before, is_operation
from fixtures.training_runs import COMMON, TINY_MODEL
from warm import WARM, clean_processes_by

LOCKS = (".lock", ".locked-by")
VOLATILE = ("tfevents", "training_log")  # logs of a run's course, with times
NUMBERS = re.compile(r"(seconds|minutes|hours|date|time_stamp|created|energy|carbon|kwh|gco2)", re.IGNORECASE)
DURATION = re.compile(r"Time of the run: [\d.]+ minutes")  # of report.md and report.html
AGAIN = re.compile(r"--(resume|overwrite)")


def words(flags: dict) -> str:
    """Flags of the command line."""
    return " ".join(
        f"--{'' if value is not False else 'no-'}{key.replace('_', '-')}"
        + ("" if isinstance(value, bool) else f" {value}")
        for key, value in flags.items()
    )


def model(fields: dict) -> str:
    return " ".join(f"--model {key}={json.dumps(value, separators=(',', ':'))}" for key, value in fields.items())


DATA = "--data csv --data-dir {base}/cohort --num-proc 1"
CACHE, COLD = " --cache-dir {base}/cache", " --cache-dir {folder}/cache"
SHORT = words({**{key: COMMON[key] for key in ("batch_size", "log_with", "progress")}, "epochs": 2})
STATES = f"{SHORT} --checkpoint-every-steps 1 --ema-decay 0.9"
FOLDS = "--train-folds 1-6 --test-folds 7-10"
FEW = "--bootstrap 20"
TINY = model(TINY_MODEL)
DANET = f"--task danet --data mit-bih --data-dir {{base}}/holter --num-proc 1 --lead-masking none {SHORT}"

VERBS = {
    "pretrain": f"pretrain {DATA}{CACHE} {STATES} --text-model none {TINY} --output-dir {{out}}",
    "pretrain, no cache": f"pretrain {DATA}{COLD} {SHORT} --text-model none {TINY} --output-dir {{out}}",
    "pretrain danet": f"pretrain {DANET}{CACHE} --pretext masked --span-masking-probability 0.5 "
    f"{model(TINY_DANET)} --output-dir {{out}}",
    "finetune": f"finetune {DATA}{CACHE} {STATES} {FEW} --task survival --from-scratch {TINY} --output-dir {{out}}",
    "finetune classification": f"finetune {DATA}{CACHE} {STATES} {FEW} --task classification {FOLDS} "
    "--checkpoint {base}/pretrained --output-dir {out}",
    "finetune danet": f"finetune {DANET}{CACHE} {FEW} --from-scratch --test-fraction 0 --valid-fraction 0.34 "
    f"{model(TINY_DANET)} --output-dir {{out}}",
    "probe": f"probe {DATA}{CACHE} {FEW} {FOLDS} --checkpoint {{base}}/pretrained --output-dir {{out}}",
    "probe at fractions": f"probe {DATA}{CACHE} {FEW} {FOLDS} --checkpoint {{base}}/pretrained "
    "--label-fractions 0.5,1 --seeds 2 --output-dir {out}",
    "ablate": f"ablate {DATA}{CACHE} {FEW} {FOLDS} --config {{base}}/ablation.yaml --epochs 1 --output-dir {{out}}",
    "recalibrate": f"recalibrate {DATA.replace('cohort', 'other')}{CACHE} --checkpoint {{base}}/survival "
    "--output-dir {out}",
    "evaluate": f"evaluate {DATA}{CACHE} {FEW} {FOLDS} --checkpoint {{base}}/survival --no-measurements "
    "--output-dir {out}",
    "evaluate in cross-validation": f"evaluate --protocol repeated-cv {DATA}{CACHE} {FEW} --recipe {{base}}/cv.yaml "
    "--folds 2 --seeds 0 --no-measurements --output-dir {out}",
    "sanity": f"sanity {DATA.replace('cohort', 'other')}{CACHE} {FEW} --checkpoint {{base}}/survival --limit 48 "
    "--draws 1 --time-steps 2 --map-records 4 --methods attention --output-dir {out}",
    "predict": "predict {base}/cohort --checkpoint {base}/survival --batch-size 8 --num-workers 0 --out {out}.csv",
    "predict to Parquet": "predict {base}/cohort --checkpoint {base}/survival --batch-size 8 --num-workers 0 "
    "--out {out}.parquet",
    "explain": "explain {base}/one.npz --checkpoint {base}/survival --out {out}.png",
    "zero-shot": "zero-shot {base}/one.npz {base}/two.npz --prompt SBRAD --checkpoint {base}/prompts --out {out}.csv",
    "bundle": "bundle {base}/survival {out}",
    "export": "export {base}/survival {out}.onnx",
    "data synthetic": "data synthetic {out} --n 20",
    "data check": "data check {base}/cohort --limit 6 --num-proc 1 --out {out}.json --html {out}.html",
    "data measure": "data measure {base}/few --num-workers 0 --out {out}.csv",
    "data outcomes": "data outcomes {base}/outcomes.csv --out {out}.csv",
    "data convert": f"data convert {{base}}/cohort {{out}} --data csv --limit 12 --keep-ids --num-proc 1{COLD}",
    "data convert to inputs": "data convert {base}/cohort {out} --data csv --limit 12 --keep-ids --num-proc 1 "
    f"--checkpoint {{base}}/survival{COLD}",
}
"""The commands: `{out}` is the result, `{folder}` its folder, `{base}` what all share."""
SLOW = ("ablate", "evaluate in cross-validation", "probe at fractions", "bundle", "export")
"""Take several seconds: an eighth of the share of the others."""


@dataclass(frozen=True)
class Case:
    """What became of one kill; `ending` is `same`, or says what was wrong."""

    number: int
    verb: str
    how: str
    replaced: bool
    kills: int
    refused: int
    ending: str


def prepare(base: Path, verbs: list[str]) -> None:
    """Data, and the checkpoints that these verbs read."""
    import numpy as np
    import pandas as pd
    import torch
    import yaml
    from fixtures.write_holter import write_holter

    from ecgdan_hf.data.simulate import synthetic
    from ecgdan_hf.model.configuration_ecgdan import STANDARD_LEADS, EcgDanConfig
    from ecgdan_hf.model.feature_extraction_ecgdan import EcgDanFeatureExtractor
    from ecgdan_hf.model.modeling_ecgdan import EcgDanForPreTraining

    synthetic.write_cohort(base / "cohort", n=48, seed=0)
    if any("{base}/other" in VERBS[each] for each in verbs):
        synthetic.write_cohort(base / "other", n=96, seed=5)
    if any("{base}/holter" in VERBS[each] for each in verbs):
        write_holter(base / "holter")
    few = sorted((base / "cohort").rglob("*.hea"))[:2]
    (base / "few").mkdir()
    for header in few:
        for file in header.parent.glob(f"{header.stem}.*"):
            shutil.copy(file, base / "few")
    for name, beats in (("one", 60), ("two", 80)):
        signal = synthetic.make_signal(0.0, 90.0, beats, 1)
        np.savez(base / f"{name}.npz", signal=signal, sampling_rate=500, unit="mV", lead_names=STANDARD_LEADS)
    table = pd.read_csv(base / "cohort" / "table.csv", dtype={"record_id": str})
    table[["record_id", "event", "time"]].to_csv(base / "outcomes.csv", index=False)
    short = {**COMMON, "epochs": 1, "model": TINY_MODEL}
    (base / "base.yaml").write_text(yaml.safe_dump({**short, "text_model": "none", "valid_fraction": 0.3}))
    variants = {"base": {}, "no lead attention": {"model": {"use_lead_attention": False}}}
    (base / "ablation.yaml").write_text(yaml.safe_dump({"base": str(base / "base.yaml"), "variants": variants}))
    (base / "cv.yaml").write_text(yaml.safe_dump({**short, "task": "survival", "from_scratch": True}))
    if any("{base}/prompts" in VERBS[each] for each in verbs):
        torch.manual_seed(0)
        network = EcgDanForPreTraining(
            EcgDanConfig(**TINY_MODEL, text_embed_dim=384, alignment_objective="statements")
        )
        network.set_prompts(["SBRAD", "AFLT"], torch.randn(2, 2, 384))
        network.save_pretrained(base / "prompts")
        EcgDanFeatureExtractor(**network.config.signal_contract).save_pretrained(base / "prompts")
    for name, verb in (("pretrained", "pretrain"), ("survival", "finetune")):
        if not any(f"{{base}}/{name}" in VERBS[each] for each in verbs):
            continue
        command = f"{VERBS[verb].replace(STATES, SHORT)} {FOLDS}"
        code = run(base, command.replace("{out}", str(base / name)), base)
        assert code == 0, said(base)


def command_line(text: str, base: Path, folder: Path) -> list[str]:
    filled = text.replace("{base}", str(base)).replace("{folder}", str(folder)).replace("{out}", str(folder / "out"))
    return filled.replace("{{", "{").replace("}}", "}").split()


def said(base: Path) -> str:
    """What the last command wrote to standard error."""
    return (base / "said.txt").read_text(encoding="utf-8", errors="replace")


def errors(base: Path) -> list[str]:
    return [line for line in said(base).splitlines() if line.startswith("error: ")]


def start(base: Path, text: str, folder: Path, kill_before: int | None = None, tell: str | None = None) -> int:
    """Starts a command in a child, which dies before its file operation of this number; the child.

    Args:
        base: what all share.
        text: the command.
        folder: where its result goes.
        kill_before: number of the operation, or None.
        tell: `operations` or `modules`: what the child writes into `base/told.json` at its end.
    """
    child = os.fork()
    if child:
        return child
    try:
        os.setpgid(0, 0)
        os.dup2(os.open(base / "said.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        seen: list[str] = []
        if kill_before is not None:
            die_before(kill_before)
        if tell == "operations":
            sys.addaudithook(lambda event, args: seen.append(event) if is_operation(event, args) else None)
        code = ecgdan(command_line(text, base, folder))
        if tell:
            number = len(seen)
            (base / "told.json").write_text(json.dumps({"operations": number, "modules": sorted(sys.modules)}))
        os._exit(code)
    except BaseException:
        traceback.print_exc()
        os._exit(3)


def ecgdan(arguments: list[str]) -> int:
    """Runs a command in this process; its exit code."""
    from ecgdan_hf.cli.main import app
    from ecgdan_hf.training.arguments.command import run_safely

    sys.argv = ["ecgdan", *arguments]
    try:
        return run_safely(app)
    except SystemExit as end:
        return int(end.code or 0)


def run(base: Path, text: str, folder: Path, kill_before: int | None = None, tell: str | None = None) -> int:
    """Runs a command in a child; its exit code."""
    return os.waitstatus_to_exitcode(os.waitpid(start(base, text, folder, kill_before, tell), 0)[1])


def run_for(base: Path, text: str, folder: Path, seconds: float) -> int:
    """Runs a command in a child that is killed after so many seconds; its exit code."""
    child = start(base, text, folder)
    time.sleep(seconds)
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def fingerprint(folder: Path, made_in: Path | None = None) -> dict[str, str]:
    """Digest of every file of a result, without the values that tell dates and durations, and without its place.

    `made_in` is where parts of it may have been made, if they were copied.
    """
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and path.name not in LOCKS and not name.startswith("cache/"):
            found[name] = hashlib.sha256(_content(path, folder, made_in or folder)).hexdigest()
    return found


def _content(path: Path, *folders: Path) -> bytes:
    content = path.read_bytes()
    if path.suffix not in (".json", ".jsonl", ".yaml", ".md", ".html", ".csv", ".svg"):
        return content
    text = content.decode(errors="replace")
    for folder in folders:
        text = text.replace(str(folder), "FOLDER")
    if path.suffix == ".json":
        with contextlib.suppress(ValueError):
            return json.dumps(_steady(json.loads(text)), sort_keys=True).encode()
    return DURATION.sub("", text).encode()


def _steady(value: object) -> object:
    if isinstance(value, dict):
        return {key: _steady(each) for key, each in value.items() if not NUMBERS.search(str(key))}
    return [_steady(each) for each in value] if isinstance(value, list) else value


class Whole:
    """A run of a verb that nobody killed: its files, operations and duration."""

    def __init__(self, base: Path, verb: str) -> None:
        self.text = VERBS[verb]
        folders = [base / "whole" / verb.replace(" ", "-") / name for name in ("one", "two")]
        for folder in folders:
            folder.mkdir(parents=True)
            started = time.monotonic()
            assert run(base, self.text, folder, tell="operations") == 0, (verb, said(base))
            self.seconds = time.monotonic() - started
            told = json.loads((base / "told.json").read_text())
            import_all(told["modules"])
        self.operations = told["operations"]
        one, two = map(fingerprint, folders)
        assert one.keys() == two.keys(), (verb, one.keys() ^ two.keys())
        self.files = one
        self.varies = {name for name in one if one[name] != two[name]}
        self.folder = folders[0]

    def differs(self, folder: Path) -> str:
        """What a result has otherwise, empty if nothing."""
        found = fingerprint(folder, self.folder)
        lost, more = sorted(self.files.keys() - found.keys()), sorted(found.keys() - self.files.keys())
        other = [name for name in self.files if name in found and found[name] != self.files[name]]
        other = [name for name in other if name not in self.varies]
        parts = {"without": lost, "left": more, "other bits in": other}
        return "; ".join(f"{word} {', '.join(names)}" for word, names in parts.items() if names)


def again(base: Path, text: str, folder: Path) -> tuple[int, int]:
    """Repeats a command until it ends, with the flags it asks for; its exit code, and how often it refused."""
    refused = 0
    code = run(base, text, folder)
    while code == 2 and refused < 2:
        lines = errors(base)
        flag = AGAIN.search(lines[0]) if len(lines) == 1 else None
        if flag is None:
            break
        refused, text = refused + 1, f"{text} {flag.group()}"
        code = run(base, text, folder)
    return code, refused


def kill(base: Path, number: int, verb: str, whole: Whole, seed: int) -> Case:
    """Kills a verb once or twice and runs it again."""
    draw = random.Random(f"{seed}/{number}")
    folder, text, kills, how = base / f"run-{number}", whole.text, 0, []
    folder.mkdir()
    replaced = draw.random() < 0.3
    if replaced:
        shutil.copytree(whole.folder, folder, dirs_exist_ok=True)
        text = _replacing(text)
    for _ in range(draw.choice((1, 1, 1, 2))):
        if draw.random() < 0.6:
            place = draw.randrange(whole.operations)
            kills += run(base, text, folder, place) == KILLED
            how.append(f"before operation {place} of {whole.operations}")
        else:
            seconds = draw.random() * whole.seconds
            kills += run_for(base, text, folder, seconds) == -signal.SIGKILL
            how.append(f"after {seconds:.2f} s of {whole.seconds:.2f}")
    code, refused = again(base, text, folder)
    ending = whole.differs(folder)
    if code and (ending or code != 2 or len(errors(base)) != 1):  # verbs that replace nothing refuse a whole result
        ending = f"exit {code}: {said(base).strip()[-600:]}; {ending}"
    shutil.rmtree(folder)
    return Case(number, verb, ", ".join(how), replaced, kills, refused, ending or "same")


def _replacing(text: str) -> str:
    """A command that replaces an earlier result, where it has a flag for that."""
    folder = "--output-dir" in text and not text.startswith("ablate") and "repeated-cv" not in text
    return text + " --overwrite" if folder else text


def import_all(modules: list[str]) -> None:
    """Imports what the verbs imported, so that children need not; not what starts threads, which a fork would lose."""
    warnings.simplefilter("ignore")
    for name in modules:
        if name not in sys.modules and not name.startswith(("__", "pytest", "onnxruntime")):
            with contextlib.suppress(Exception), contextlib.redirect_stderr(None):
                importlib.import_module(name)


def series(base: Path, verbs: list[str], numbers: range, seed: int) -> Iterator[Case]:
    """Kills the verbs in turn."""
    wholes: dict[str, Whole] = {}
    turns = verbs + 7 * [verb for verb in verbs if verb not in SLOW or len(verbs) == 1]
    for number in numbers:
        verb = turns[number % len(turns)]
        if verb not in wholes:
            wholes[verb] = Whole(base, verb)
            print(f"{verb}: {wholes[verb].operations} operations, {wholes[verb].seconds:.1f} s, varies: "
                  f"{sorted(wholes[verb].varies)}", file=sys.stderr, flush=True)  # fmt: skip
        yield kill(base, number, verb, wholes[verb], seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--first", type=int, default=0, help="number of the first run, to see one again")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verbs", help="names, separated by commas; default: all")
    parser.add_argument("--out", type=Path, help="a line of JSON for each run; those it holds are not repeated")
    asked = parser.parse_args()
    verbs = asked.verbs.split(",") if asked.verbs else list(VERBS)
    lines = asked.out.read_text(encoding="utf-8").splitlines() if asked.out and asked.out.exists() else []
    cases = [Case(**json.loads(line)) for line in lines]
    first = max([asked.first, *(case.number + 1 for case in cases)])
    with tempfile.TemporaryDirectory() as work, clean_processes_by(WARM.run):
        if "bundle" in verbs:
            WARM.address()
        prepare(Path(work), verbs)
        while sum(case.kills for case in cases) < asked.kills:
            for case in series(Path(work), verbs, range(first, 10**9), asked.seed):
                cases.append(case)
                if asked.out:
                    with asked.out.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(asdict(case)) + "\n")
                if case.ending != "same":
                    print(json.dumps(asdict(case)), flush=True)
                if sum(each.kills for each in cases) >= asked.kills:
                    break
    WARM.close()
    ends = Counter("same" if case.ending == "same" else "other" for case in cases)
    print(f"{sum(case.kills for case in cases)} kills of {len(cases)} runs: {dict(ends)}")
    sys.exit(ends["other"] > 0)


if __name__ == "__main__":
    main()
