"""Turns a checkpoint into a folder for the Hub that loads with transformers alone.

The folder carries the code of `ecgdan_hf/model`, and its configuration says which class is where (`auto_map`), so that
`AutoModel.from_pretrained(FOLDER, trust_remote_code=True)` works where the package is not installed. It is built in a
hidden folder next to its destination, loaded there in a clean process, and only then given its name.
"""

import inspect
import json
import logging
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard
from transformers.dynamic_module_utils import get_relative_import_files

from ecgdan_hf.evaluation.result import Result
from ecgdan_hf.evaluation.seen_records import FILE as SEEN_RECORDS
from ecgdan_hf.evaluation.small_cells import without_small_cells
from ecgdan_hf.files import whole_folder
from ecgdan_hf.inference.checkpoints import load_checkpoint, quietly
from ecgdan_hf.inference.heads import HEADS, head_of
from ecgdan_hf.model.configuration_ecgdan import ECGDAN_VERSION
from ecgdan_hf.model.feature_extraction_ecgdan import EcgDanFeatureExtractor
from ecgdan_hf.model.modeling_ecgdan import EcgDanPreTrainedModel
from ecgdan_hf.model.processing_ecgdan import EcgTextProcessor
from ecgdan_hf.publish.card.checks import metadata_problems
from ecgdan_hf.publish.card.evaluations import CheckpointRun, Evaluation
from ecgdan_hf.publish.card.facts import WORLD_GCO2_PER_KWH
from ecgdan_hf.publish.card.model_card import build_card
from ecgdan_hf.publish.hub_code import HubCode
from ecgdan_hf.publish.identifiers import find_identifiers, findings_in_words, known_of_run
from ecgdan_hf.publish.verify import REVISION_KEY, is_bundle, pipelines_of, verify_bundle

_logger = logging.getLogger(__name__)


def make_bundle(
    checkpoint_dir: str | Path,
    out_dir: str | Path,
    name: str | None = None,
    dataset_id: str | None = None,
    results: Sequence[str | Path] = (),
    power_watts: float | None = None,
    grid_gco2_per_kwh: float = WORLD_GCO2_PER_KWH,
    contact: str | None = None,
    training_data: str | None = None,
    base_model: str | None = None,
    small_cells: int = 0,
) -> Path:
    """Writes the Hub-ready folder of a checkpoint.

    A checkpoint that has a card keeps it, unless an argument adds something to it: the card is then rebuilt,
    with the evaluations the checkpoint carries and those given.

    Args:
        checkpoint_dir: folder with model and feature extractor, and, where training wrote them, `metrics.json` and
            `recipe.yaml`.
        out_dir: new or empty folder, or a previous bundle, which is replaced.
        name: title of the model card; default the name of `out_dir`.
        dataset_id: `OWNER/NAME` of the data on the Hub, for the card's metadata. The Hub's `.eval_results/` is not
            written: it takes results of tasks that a registered benchmark dataset defines, and none is about ECGs.
        results: folders of further evaluations (`ecgdan probe`, `evaluate`, `finetune`, `sanity`): their tables go
            into the card, their numbers into the metadata and `evaluation/`.
        power_watts, grid_gco2_per_kwh, contact, training_data, base_model: of the card, see [`build_card`].
        small_cells: leave groups with fewer records, patients or events out of card and results; 0 leaves out none.

    Returns:
        `out_dir`.

    Raises:
        FileNotFoundError: no such checkpoint, or no results in a folder of `results`.
        ValueError: not a checkpoint, results that cannot be used or share a name, an `out_dir` with other content, or
            a bundle that fails its proof. Nothing is left behind.
    """
    source, out = Path(checkpoint_dir), Path(out_dir)
    if not source.is_dir():
        raise FileNotFoundError(f"{source}: no such checkpoint folder")
    _check_destination(source, out)
    said = {"contact": contact, "training_data": training_data, "base_model": base_model, "dataset_id": dataset_id}
    asked = (name, results, power_watts, small_cells, *said.values())
    keeps_card = (source / "README.md").is_file() and not any(asked)
    evaluations = [] if keeps_card else Evaluation.gather(source, results)
    evaluations = [replace(each, result=_shown(each.result, small_cells)) for each in evaluations]
    model, extractor = load_checkpoint(source)
    with whole_folder(out, overwrite=True) as staging:
        has_text = head_of(model).task == "text"
        tokenizer = EcgTextProcessor.from_pretrained(source).tokenizer if has_text else None
        _write_code_and_weights(model, extractor, staging, tokenizer)
        (staging / "LICENSE").write_text(_license_text(), encoding="utf-8")
        if keeps_card:
            _carry_documents(source, staging)
            CheckpointRun.read(source).write(staging)
        else:
            run, title = CheckpointRun.read(source), name or out.name
            run = replace(run, result=_shown(run.result, small_cells)) if run.result else run
            metrics = run.result.metrics if run.result else None
            card = build_card(model, metrics, run.recipe, title, evaluations, power_watts, grid_gco2_per_kwh, **said)
            _write_documents(source, card, run, evaluations, staging)
        if (source / SEEN_RECORDS).is_file():
            shutil.copyfile(source / SEEN_RECORDS, staging / SEEN_RECORDS)
        found = find_identifiers(staging, known_of_run(source))
        verify_bundle(staging)
    if found:
        _logger.warning("%s: `ecgdan push` will refuse it; found %s", out, findings_in_words(found))
    return out


def _check_destination(source: Path, out: Path) -> None:
    if out.resolve() == source.resolve() or source.resolve() in out.resolve().parents:
        raise ValueError(f"{out}: expected a folder outside the checkpoint {source}")
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out}: expected a folder, found a file")
    if out.is_dir() and any(out.iterdir()) and not is_bundle(out):
        raise ValueError(f"{out}: expected an empty folder or a previous bundle, found other files")


def _write_code_and_weights(
    model: EcgDanPreTrainedModel, extractor: EcgDanFeatureExtractor, folder: Path, tokenizer: Any = None
) -> None:
    """Writes what is needed to load a bundle: weights, configuration, and the code of every class."""
    model.config.ecgdan_version = ECGDAN_VERSION
    with _registered(model, extractor), quietly():
        model.save_pretrained(folder)
        extractor.save_pretrained(folder)
        if tokenizer is not None:
            EcgTextProcessor(extractor, tokenizer).save_pretrained(folder)
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    # saving lists the saved class alone; the other heads of this configuration are listed here
    for head in HEADS.values():
        if head.can_be_built(model.config):
            config["auto_map"].setdefault(head.auto_class, _named(head.model_class))
    if head_of(model).task == "text":
        config["auto_map"]["AutoProcessor"] = _copied(EcgTextProcessor, folder)
    own = head_of(model).auto_class  # tried first: refusing a checkpoint takes an Auto class seconds
    config["custom_pipelines"] = {
        pipeline.serves: {
            "impl": _copied(pipeline, folder),
            "pt": [own, *(name for name in pipeline.auto_classes() if name != own)],
            "type": "multimodal",
        }
        for pipeline in pipelines_of(model)
    }
    config[REVISION_KEY] = HubCode(folder.glob("*.py")).revision
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _named(kind: type) -> str:
    return f"{kind.__module__.split('.')[-1]}.{kind.__name__}"


def _copied(kind: type, folder: Path) -> str:
    """Copies the code of a class and all that code needs; returns the name of the class."""
    file = inspect.getfile(kind)
    for path in map(Path, (file, *get_relative_import_files(file))):
        shutil.copyfile(path, folder / path.name)
    return _named(kind)


@contextmanager
def _registered(model: EcgDanPreTrainedModel, extractor: EcgDanFeatureExtractor) -> Iterator[None]:
    """Makes saving copy code, in this block only: an ordinary `save_pretrained` must not."""
    classes: dict[Any, str] = {
        type(model): head_of(model).auto_class,
        type(model.config): "AutoConfig",
        type(extractor): "AutoFeatureExtractor",
        EcgTextProcessor: "AutoProcessor",
    }
    before = {kind: vars(kind).get("_auto_class", ...) for kind in classes}
    try:
        for kind, auto_class in classes.items():
            kind.register_for_auto_class(auto_class)
        yield
    finally:
        for kind, value in before.items():
            if value is ...:
                del kind._auto_class  # it was inherited
            else:
                kind._auto_class = value


def _shown(result: Result, small_cells: int) -> Result:
    return Result(result.kind, without_small_cells(result.metrics, small_cells)) if small_cells else result


def _write_documents(
    source: Path, card: ModelCard, run: CheckpointRun, evaluations: Sequence[Evaluation], folder: Path
) -> None:
    if problems := metadata_problems(str(card)):
        raise ValueError(f"{source}: the Hub would refuse the card's metadata: {'; '.join(problems)}")
    card.save(folder / "README.md")
    run.write(folder)
    for each in evaluations:
        (folder / "evaluation").mkdir(exist_ok=True)
        each.result.write(folder / "evaluation" / f"{each.name}.json")


def _carry_documents(source: Path, folder: Path) -> None:
    """Copies the card and the further results of a released checkpoint."""
    shutil.copyfile(source / "README.md", folder / "README.md")
    for name in ("evaluation", ".eval_results"):
        if (source / name).is_dir():
            shutil.copytree(source / name, folder / name)


def _license_text() -> str:
    """Returns the licence of code and weights, in full where the installation carries it."""
    installed = metadata.distribution("ecgdan-hf")
    in_repository = Path(__file__).resolve().parents[2] / "LICENSE"
    if text := installed.read_text("licenses/LICENSE"):
        return text
    if in_repository.is_file():
        return in_repository.read_text(encoding="utf-8")
    return (
        "Licensed under the Apache License, Version 2.0; you may obtain a copy of the License at\n"
        'http://www.apache.org/licenses/LICENSE-2.0. Distributed on an "AS IS" BASIS, WITHOUT WARRANTIES OR\n'
        "CONDITIONS OF ANY KIND, either express or implied.\n"
    )
