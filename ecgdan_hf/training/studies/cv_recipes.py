"""The networks that a repeated cross-validation compares, and the arguments of their runs in each fold."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ecgdan_hf.evaluation.folds import check_unseen, recipe_of
from ecgdan_hf.model.configuration_ecgdan import EcgDanConfig
from ecgdan_hf.training.arguments.fields import (
    NOT_PART_OF_THE_RUN,
    EvaluateArguments,
    FinetuneArguments,
    PretrainArguments,
)
from ecgdan_hf.training.arguments.options import resolve
from ecgdan_hf.training.core.supervised import FinetuningRun
from ecgdan_hf.training.studies.ablation import slug

_NO_PRETRAINING = "no pretraining"
_IN_FOLD = "pretrained in the fold"
FEW_EVENTS_MODEL = "few-events model"
_KEPT_BY_FEW_EVENTS = ("covariates", "missing_covariates", "endpoint", "simulated_outcome", "leads", "batch_size")
"""Arguments of `common` that the few-events model takes too."""
_SHARED = ("data", "data_dir", "labels", "cache_dir", "limit", "num_proc", "skip_bad")
"""Arguments handed on to every fine-tuning."""

_OWN_SPLIT = ("train_folds", "valid_folds", "test_folds", "label_fraction", "test_fraction")
"""Arguments of `ecgdan finetune` that a fold decides."""

_MAY_DIFFER = ("output_dir", "seeds", "bootstrap", "seed", "overwrite", "num_proc", "batch_size", "cache_dir",
              "statements", "small_cells")  # fmt: skip
"""Arguments that may differ when a cross-validation resumes: more seeds add folds, the others change no prediction."""

Networks = Mapping[str, Callable[[EcgDanConfig], Any]]


@dataclass(frozen=True)
class Contender:
    """A network that every fold trains.

    Attributes:
        name: in the report, and of its folder.
        start: `checkpoint` or `from_scratch`, as arguments of `ecgdan finetune`.
        build: makes the network from the configuration; None builds the package's own.
        few_events: fits the few-events model to its frozen encoder, whatever the recipe.
    """

    name: str
    start: dict[str, Any]
    build: Callable[[EcgDanConfig], Any] | None = None
    few_events: bool = False

    @property
    def is_pretrained_in_fold(self) -> bool:
        """Whether each fold pretrains it on its own patients."""
        return self.start.get("checkpoint") == _IN_FOLD


class Recipes:
    """The networks to compare, and the arguments of their runs.

    Rejects names that are taken, arguments that the runs do not know, and a checkpoint trained on the test records.
    `networks` are further ones by name, each built from the configuration.

    Attributes:
        contenders: the networks, the evaluated one first.
    """

    def __init__(self, args: EvaluateArguments, networks: Networks):
        self.args = args
        own = next((name for name in _OWN_SPLIT if name in args.common), None)
        if own:
            raise ValueError(f"common: {own}: repeated-cv makes its own folds and uses every label; leave it out")
        if args.checkpoint and args.pretrain:
            raise ValueError("checkpoint, pretrain: expected one of the two, got both")
        self.contenders = self._contenders(networks)
        names = [each.name for each in self.contenders]
        if len({slug(name) for name in names}) < len(names):
            raise ValueError(f"control: expected names that differ, got {', '.join(names)}")
        for each in self.contenders:
            self._check_unseen(each.start.get("checkpoint"))
            self.finetuning(each, 0, Path("unused"))

    def _contenders(self, networks: Networks) -> list[Contender]:
        args, scratch = self.args, {"from_scratch": True}
        found = [Contender("ECG-DAN", scratch)]
        if args.pretrain:
            self.pretraining(0, Path("unused"))
            found = [Contender("ECG-DAN", {"checkpoint": _IN_FOLD})]
        if args.checkpoint:
            found = [Contender(Path(args.checkpoint).name, {"checkpoint": args.checkpoint})]
        if found[0].start is not scratch and not self._is_few_events(found[0]):
            found += [Contender(_NO_PRETRAINING, scratch)] if args.no_pretraining else []
            found += [replace(found[0], name=FEW_EVENTS_MODEL, few_events=True)] if args.few_events else []
        found += [Contender(name, {"checkpoint": str(path)}) for name, path in args.control.items()]
        return found + [Contender(name, scratch, build) for name, build in networks.items()]

    def _is_few_events(self, contender: Contender) -> bool:
        """Whether the recipe fits the few-events model, which needs no second one and no network from scratch."""
        return self.finetuning(contender, 0, Path("unused")).method == "few-events"

    def _check_unseen(self, checkpoint: str | None) -> None:
        """Rejects a checkpoint fine-tuned on these records, and, unless accepted, one pretrained on them."""
        recipe = recipe_of(checkpoint) if checkpoint else None
        if not checkpoint or recipe is None:
            return
        learned = recipe.get("task")
        if learned or not self.args.seen_in_pretraining:
            try:
                check_unseen(checkpoint, None, self.args.data_dir)
            except ValueError as error:
                way = "" if learned else ", or --seen-in-pretraining where it saw no outcome"
                raise ValueError(f"{error}{way}") from error

    def finetuning(self, contender: Contender, seed: int, folder: Path) -> FinetuneArguments:
        """The arguments of one network in one fold; a run that is in the folder resumes."""
        args = self.args
        network = {**args.common.get("model", {}), **(args.model if contender.start.get("from_scratch") else {})}
        flags = {**args.common, **self._shared(), **contender.start, "bootstrap": 20}
        recipe = args.recipe
        if contender.few_events:
            recipe, network = "finetune-few-events", {}
            common = {name: args.common[name] for name in _KEPT_BY_FEW_EVENTS if name in args.common}
            flags = {**common, **self._shared(), **contender.start, "bootstrap": 20}
        found = resolve(FinetuneArguments, recipe, {**flags, **_run_in(folder, seed), "model": network})
        if found.task != "survival":
            raise ValueError(f"recipe: expected one of survival, got task {found.task} in {args.recipe}")
        found = replace(found, train_folds=None, valid_folds=None, test_folds=None, label_fraction=1.0)
        FinetuningRun.check_arguments(found)
        return found

    def pretraining(self, seed: int, folder: Path) -> PretrainArguments:
        """The arguments of pretraining in one fold; a run that is in the folder resumes."""
        args, shared = self.args, self._shared()
        shared.pop("labels", None)
        network = {**args.pretrain_common.get("model", {}), **args.model}
        flags = {**args.pretrain_common, **shared, **_run_in(folder, seed), "model": network}
        found = resolve(PretrainArguments, args.pretrain, flags)
        return replace(found, train_folds=None, valid_folds=None, test_folds=None, label_fraction=1.0)

    def evaluated(self) -> FinetuneArguments:
        """The arguments of the evaluated network, apart from its fold."""
        first = self.contenders[0]
        if first.is_pretrained_in_fold:
            first = Contender(first.name, {"from_scratch": True})
        return self.finetuning(first, 0, Path("unused"))

    def lasting(self) -> dict[str, Any]:
        """Arguments that all folds of a folder share, including the current content of the recipes."""
        found = {name: value for name, value in asdict(self.args).items() if name not in _MAY_DIFFER}
        recipes: dict[str, Any] = {"recipe": self.evaluated()}
        if self.args.pretrain:
            recipes["pretrain"] = self.pretraining(0, Path("unused"))
        for kind, recipe in recipes.items():
            keys = [name for name in asdict(recipe) if name not in (*NOT_PART_OF_THE_RUN, "output_dir")]
            found |= {f"{kind}: {name}": getattr(recipe, name) for name in keys}
        return found

    def _shared(self) -> dict[str, Any]:
        return {name: getattr(self.args, name) for name in _SHARED if getattr(self.args, name) is not None}


def _run_in(folder: Path, seed: int) -> dict[str, Any]:
    return {"output_dir": str(folder), "seed": seed, "resume": (folder / "recipe.yaml").is_file()}
