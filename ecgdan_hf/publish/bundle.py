"""Turns a checkpoint into a folder for the Hub that loads with transformers alone.

The folder carries the code of `ecgdan_hf/model`, and its configuration says which class is where (`auto_map`), so that
`AutoModel.from_pretrained(FOLDER, trust_remote_code=True)` works where the package is not installed. It is built in a
hidden folder next to its destination, loaded there in a clean process, and only then given its name.
"""

import inspect
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml
from transformers.dynamic_module_utils import get_relative_import_files

from ecgdan_hf.files import whole_folder
from ecgdan_hf.inference.checkpoints import load_checkpoint, quietly
from ecgdan_hf.inference.heads import HEADS, head_of
from ecgdan_hf.model.configuration_ecgdan import ECGDAN_VERSION
from ecgdan_hf.model.feature_extraction_ecgdan import EcgDanFeatureExtractor
from ecgdan_hf.model.modeling_ecgdan import EcgDanPreTrainedModel
from ecgdan_hf.model.processing_ecgdan import EcgTextProcessor
from ecgdan_hf.publish.card.carbon import WORLD_GCO2_PER_KWH, emissions_of
from ecgdan_hf.publish.card.checks import metadata_problems
from ecgdan_hf.publish.card.evaluations import (
    Evaluation,
    in_order,
    kept_evaluations,
    read_evaluation,
    read_mapping,
    read_result,
    without_local_paths,
)
from ecgdan_hf.publish.card.model_card import build_card
from ecgdan_hf.publish.hub_code import code_revision
from ecgdan_hf.publish.verify import REVISION_KEY, is_bundle, pipelines_of, verify_bundle


def bundle(
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
        power_watts: power of the hardware training kept busy, for an estimate of its energy; None makes none.
        grid_gco2_per_kwh: carbon intensity of the electricity.
        contact, training_data, base_model: of the card, see [`build_card`].

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
    evaluations = _read_evaluations(results)
    said = {"contact": contact, "training_data": training_data, "base_model": base_model}
    model, extractor = load_checkpoint(source)
    with whole_folder(out, overwrite=True) as staging:
        _write_code_and_weights(model, extractor, staging, _tokenizer(model, source))
        emissions = (power_watts, grid_gco2_per_kwh)
        if (source / "README.md").is_file() and not any((name, dataset_id, evaluations, power_watts, *said.values())):
            _carry_documents(source, staging)
        else:
            carried = [each for each in kept_evaluations(source) if each.name not in {new.name for new in evaluations}]
            evaluations = in_order([*carried, *evaluations])
            _write_documents(model, source, staging, name or out.name, dataset_id, evaluations, emissions, said)
        verify_bundle(staging)
    return out


def _check_destination(source: Path, out: Path) -> None:
    if out.resolve() == source.resolve() or source.resolve() in out.resolve().parents:
        raise ValueError(f"{out}: expected a folder outside the checkpoint {source}")
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out}: expected a folder, found a file")
    if out.is_dir() and any(out.iterdir()) and not is_bundle(out):
        raise ValueError(f"{out}: expected an empty folder or a previous bundle, found other files")


def _tokenizer(model: EcgDanPreTrainedModel, source: Path) -> Any:
    """Of the language model that the checkpoint stores; None where it stores none."""
    return EcgTextProcessor.from_pretrained(source).tokenizer if head_of(model).task == "text" else None


def _write_code_and_weights(
    model: EcgDanPreTrainedModel, extractor: EcgDanFeatureExtractor, folder: Path, tokenizer: Any = None
) -> None:
    """Everything of a bundle that is needed to load it: weights, configuration, and code of every class.

    Args:
        model, extractor: as [`load_checkpoint`] gives them.
        folder: empty.
        tokenizer: of the language model, where the checkpoint stores one.
    """
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
    config[REVISION_KEY] = code_revision(folder.glob("*.py"))
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _named(kind: type) -> str:
    return f"{kind.__module__.split('.')[-1]}.{kind.__name__}"


def _copied(kind: type, folder: Path) -> str:
    """Name of a class, once its code and all that code needs is in the folder."""
    file = inspect.getfile(kind)
    for path in map(Path, (file, *get_relative_import_files(file))):
        shutil.copyfile(path, folder / path.name)
    return _named(kind)


@contextmanager
def _registered(model: EcgDanPreTrainedModel, extractor: EcgDanFeatureExtractor) -> Iterator[None]:
    """Lets saving copy code, and only here: an ordinary `save_pretrained` must not."""
    classes: list[Any] = [type(model), type(model.config), type(extractor), EcgTextProcessor]
    before = [vars(kind).get("_auto_class", ...) for kind in classes]
    try:
        type(model).register_for_auto_class(head_of(model).auto_class)
        type(model.config).register_for_auto_class("AutoConfig")
        type(extractor).register_for_auto_class("AutoFeatureExtractor")
        EcgTextProcessor.register_for_auto_class("AutoProcessor")
        yield
    finally:
        for kind, value in zip(classes, before, strict=True):
            if value is ...:
                del kind._auto_class  # it was inherited
            else:
                kind._auto_class = value


def _read_evaluations(folders: Sequence[str | Path]) -> list[Evaluation]:
    found = [read_evaluation(folder) for folder in folders]
    names = [each.name for each in found]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"results: expected folders of different names, got {twice} more than once; rename one")
    return found


def _write_documents(
    model: EcgDanPreTrainedModel,
    source: Path,
    folder: Path,
    name: str,
    dataset_id: str | None,
    evaluations: Sequence[Evaluation],
    power_and_grid: tuple[float | None, float],
    said: dict[str, str | None],
) -> None:
    result = read_result(source) if (source / "metrics.json").is_file() else None
    metrics = None if result is None else result.metrics
    recipe = without_local_paths(read_mapping(source / "recipe.yaml", yaml.safe_load))
    emissions = emissions_of(metrics, *power_and_grid)
    card = build_card(model, metrics, recipe, name, evaluations, emissions, dataset_id=dataset_id, **said)
    if problems := metadata_problems(str(card)):
        raise ValueError(f"{source}: the Hub would refuse the card's metadata: {'; '.join(problems)}")
    card.save(folder / "README.md")
    (folder / "LICENSE").write_text(_license_text(), encoding="utf-8")
    if result is not None:
        result.write(folder)
    if recipe is not None:
        (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    for each in evaluations:
        (folder / "evaluation").mkdir(exist_ok=True)
        each.result.write(folder / "evaluation" / f"{each.name}.json")


def _carry_documents(source: Path, folder: Path) -> None:
    """Card and results of a released checkpoint."""
    (folder / "LICENSE").write_text(_license_text(), encoding="utf-8")
    for name in ("README.md", "metrics.json", "recipe.yaml"):
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
    for name in ("evaluation", ".eval_results"):
        if (source / name).is_dir():
            shutil.copytree(source / name, folder / name)


def _license_text() -> str:
    """The licence of code and weights, in full where the installation carries it."""
    installed = metadata.distribution("ecgdan-hf")
    in_repository = Path(__file__).resolve().parents[2] / "LICENSE"
    text = installed.read_text("licenses/LICENSE") or (
        in_repository.read_text(encoding="utf-8") if in_repository.is_file() else None
    )
    return text or (
        "Licensed under the Apache License, Version 2.0; you may obtain a copy of the License at\n"
        'http://www.apache.org/licenses/LICENSE-2.0. Distributed on an "AS IS" BASIS, WITHOUT WARRANTIES OR\n'
        "CONDITIONS OF ANY KIND, either express or implied.\n"
    )
