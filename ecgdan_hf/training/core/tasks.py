"""Tasks of fine-tuning: a log hazard (Cox) or the probability of each label, with their predictions and metrics.

A task gives the loop a loss and a validation. After the loop it fits the baseline hazard or the thresholds, predicts,
and summarises its predictions.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ecgdan_hf.evaluation.comparators.baselines import RidgeCox
from ecgdan_hf.evaluation.measures.classification import best_f1_thresholds, classification_metrics, macro_auroc
from ecgdan_hf.evaluation.measures.follow_up import FollowUp
from ecgdan_hf.evaluation.measures.survival import concordance_index, survival_metrics
from ecgdan_hf.evaluation.protocols.subgroups import Found, classification_subgroups, survival_subgroups
from ecgdan_hf.inference.prediction_rows import RISK_YEARS, risk_columns, risk_suffixes
from ecgdan_hf.inference.rows import columns_of, endpoint_table
from ecgdan_hf.model.configuration_ecgdan import EcgDanConfig, EcgDanSurvivalConfig
from ecgdan_hf.model.modeling_ecgdan import EcgDanForSequenceClassification, EcgDanForSurvival, EcgDanSurvivalOutput
from ecgdan_hf.training.core.batching import Batch

_SLOPE_LIMITS = (0.1, 2.0)
_SLOPE_PENALIZER = 1e-4
INPUTS = ("input_values", "lead_mask", "waveform_weights")
_PREDICTED = ("log_hazard", "hazard_logits")
OUTCOME = ("event", "time", "entry")
"""Columns of the follow-up; `entry` only where it is delayed."""
_SUBJECT_COLUMNS = ["record_id", "patient_id", "fold", "age", "sex"]


@torch.no_grad()
def collect(
    model: nn.Module, loader: DataLoader[Any], forward: Callable[[nn.Module, Batch], Batch], accelerator: Accelerator
) -> dict[str, np.ndarray]:
    """Returns the output of `forward` for every row, in the order of the rows: name -> (rows, ...) float arrays.

    Puts the model into evaluation mode. `forward` takes it and a batch, and returns tensors with the batch in front.
    """
    model.eval()
    parts: dict[str, list[np.ndarray]] = {}
    for batch in loader:
        with accelerator.autocast():
            outputs = forward(model, batch)
        for name, value in accelerator.gather_for_metrics(outputs).items():
            parts.setdefault(name, []).append(value.float().cpu().numpy())
    return {name: np.concatenate(values) for name, values in parts.items()}


def gather_with_grad(value: Tensor, accelerator: Accelerator) -> Tensor:
    """Rows of all processes, with the gradient; the tensor itself for one process.

    Risk sets and negatives then reach across processes. Every process computes the same loss, the backward pass adds
    up what all of them ask of a row, and DDP's mean over processes gives the gradient of that one loss.
    """
    if accelerator.num_processes == 1:
        return value
    sizes = accelerator.gather(torch.tensor([len(value)], device=value.device)).tolist()
    missing = value.new_zeros(max(sizes) - len(value), *value.shape[1:])  # batches differ by a record
    gathered: Tensor = _AllGather.apply(torch.cat([value, missing]))
    return torch.cat([part[:size] for part, size in zip(gathered, sizes, strict=True)])


class _AllGather(torch.autograd.Function):
    """(n, ...) of each of p equal processes -> (p, n, ...); the gradient is the sum of what all processes ask.

    PyTorch's own (`torch.distributed.nn.functional`) is deprecated.
    """

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        parts = [torch.empty_like(value) for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather(parts, value.contiguous())
        return torch.stack(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone(memory_format=torch.contiguous_format)
        torch.distributed.all_reduce(total)
        return total[torch.distributed.get_rank()]


def outcome_of(part: Any, endpoints: Sequence[str] = ()) -> dict[str, Tensor]:
    """`event`, `time` and, where it is delayed, `entry` of these rows: (n,) each, float64.

    With several endpoints event and time are (n, endpoints), NaN where they are not known.
    """
    if not endpoints:
        return _tensors(columns_of(part, OUTCOME))
    table = columns_of(part, [*endpoint_columns(endpoints), "entry"])
    found = {kind: table[[f"{kind}_{name}" for name in endpoints]].to_numpy() for kind in ("event", "time")}
    return _tensors(found | ({"entry": table["entry"].to_numpy()} if "entry" in table else {}))


def endpoint_columns(endpoints: Sequence[str]) -> list[str]:
    """Columns of the follow-up of these endpoints."""
    return [f"{kind}_{name}" for name in endpoints for kind in ("event", "time")]


def _tensors(found: Any) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.array(found[name], dtype=np.float64)) for name in OUTCOME if name in found}


class SurvivalTask:
    """Follow-up and reconstruction; the epoch with the best concordance on the validation patients.

    With several causes it is the mean concordance of those that happened among them.
    """

    metric, higher_is_better = "concordance_index", True

    def __init__(self, config: EcgDanSurvivalConfig, valid_loader: DataLoader[Any]):
        self.config, self.valid_loader = config, valid_loader
        self.calibration_slope: float | list[float] = 1.0

    def losses(self, model: nn.Module, batch: Batch, accelerator: Accelerator) -> dict[str, Tensor]:
        """Losses of a batch; with several processes, all their subjects form the risk sets."""
        output = model(**batch)
        if accelerator.num_processes > 1 and self.config.hazard == "cox":
            log_hazard = gather_with_grad(output.log_hazard, accelerator)
            outcome = {name: gather_with_grad(batch[name], accelerator) for name in OUTCOME if name in batch}
            everywhere = _network(model).follow_up_loss(EcgDanSurvivalOutput(log_hazard=log_hazard), **outcome)
            output.loss = output.loss + self.config.survival_weight * (everywhere - output.cox_loss)
            output.cox_loss = everywhere
        names = ("loss", "cox_loss", "reconstruction_loss")
        found = {name: output[name] for name in names if output.get(name) is not None}
        without = (~(batch["event"] > 0).any()).float()  # their Cox loss is zero
        return {**found, "batches_without_event": without}

    def validate(self, model: nn.Module, accelerator: Accelerator) -> dict[str, float]:
        """Concordance, and the loss over all validation patients as one risk set."""
        found = collect(model, self.valid_loader, self._forward, accelerator)
        judged = [each for each in _by_risk(found) if FollowUp(*each[:2]).has_pair]
        values = [concordance_index(*each) for each in judged]
        loss = _network(model).follow_up_loss(_output_of(found), **_tensors(found))
        return {"concordance_index": float(np.mean(values)), "cox_loss": float(loss)}

    @staticmethod
    def _forward(model: nn.Module, batch: Batch) -> Batch:
        output = model(batch["input_values"], batch["lead_mask"], batch.get("covariates"), return_loss=False)
        found = {name: output[name] for name in _PREDICTED if output.get(name) is not None}
        return found | {name: batch[name] for name in OUTCOME if name in batch}

    def finish(self, model: EcgDanForSurvival, train_loader: DataLoader[Any], accelerator: Accelerator) -> None:
        """Shrinks the log hazard to what the validation patients bear out, then fits the baseline hazard.

        Trained to the end, a network spreads the log hazards of its training patients wider than those of others, and
        its absolute risks become extreme. Cox regression of the validation outcome on the log hazard gives the slope
        to shrink by (van Houwelingen, Statistics in Medicine 19:3401, 2000); the order of risks stays as it is. Each
        cause has a slope of its own. A discrete hazard is left as it is: the validation chose its epoch.
        """
        if self.config.hazard == "discrete":
            return
        found = collect(model, self.valid_loader, self._forward, accelerator)
        slopes = [_log_hazard_slope(*each) for each in _by_risk(found)]
        self.calibration_slope = slopes if len(slopes) > 1 else slopes[0]
        _scale_log_hazard(model, slopes)
        found = collect(model, train_loader, self._forward, accelerator)
        model.fit_baseline(torch.from_numpy(found["log_hazard"]), **_tensors(found))

    def predictions(
        self, model: EcgDanForSurvival, loader: DataLoader[Any], dataset: Any, accelerator: Accelerator
    ) -> pd.DataFrame:
        """Subject, outcome, log hazard and absolute risk; and `true_log_hazard` if it was simulated."""
        found = collect(model, loader, self._forward, accelerator)
        names = self.config.endpoint_names
        outcome = [*endpoint_columns(names), "entry"] if names else [*OUTCOME, "log_hazard"]
        table = columns_of(dataset, [*_SUBJECT_COLUMNS, *outcome])
        table = table.rename(columns={"log_hazard": "true_log_hazard"})
        risk = model.risks(_output_of(found, model.device), RISK_YEARS).risk.cpu().numpy()
        return table.assign(**risk_columns(self.config.risk_names, found["log_hazard"], risk))

    def summary(self, predictions: pd.DataFrame, n: int, seed: int) -> dict[str, Any]:
        """Concordance with its interval; that of the true hazard, the best attainable, where it is known.

        Under `causes` that of each further cause, in which the others censor; under `endpoints` that of each further
        endpoint, on the records whose follow-up for it is known.
        """
        if self.config.endpoint_names:
            return self._summary_of_endpoints(predictions, n, seed)
        truth, patients = (predictions["event"], FollowUp.time_of(predictions)), predictions["patient_id"]
        found = survival_metrics(*truth, predictions["log_hazard"], patient_ids=patients, n=n, seed=seed)
        further = list(zip(self.config.risk_names, risk_suffixes(self.config.risk_names), strict=True))[1:]
        for cause, (name, suffix) in enumerate(further, start=2):
            codes, scores = FollowUp.of_cause(truth[0], cause), predictions[f"log_hazard{suffix}"]
            if FollowUp(codes, truth[1]).has_pair:
                judged = survival_metrics(codes, truth[1], scores, patient_ids=patients, n=n, seed=seed)
                found.setdefault("causes", {})[name] = judged
        if "true_log_hazard" in predictions:
            found["attainable_concordance_index"] = concordance_index(*truth, predictions["true_log_hazard"])
        return found

    def _summary_of_endpoints(self, predictions: pd.DataFrame, n: int, seed: int) -> dict[str, Any]:
        names, found = self.config.endpoint_names, {}
        for name, suffix in zip(names, risk_suffixes(names), strict=True):
            known = endpoint_table(predictions, name)
            given = known["event"], FollowUp.time_of(known), known[f"log_hazard{suffix}"]
            if not suffix or FollowUp(*given[:2]).has_pair:
                found[name] = survival_metrics(*given, patient_ids=known["patient_id"], n=n, seed=seed)
        return {**found.pop(names[0]), "endpoints": found}

    def subgroups(self, predictions: pd.DataFrame, n: int, seed: int) -> Found:
        """Concordance by sex and age; of several endpoints that of the first."""
        if names := self.config.endpoint_names:
            predictions = endpoint_table(predictions, names[0])
        return survival_subgroups(predictions, predictions["log_hazard"], n=n, seed=seed)


class ClassificationTask:
    """Binary cross-entropy for each label; the epoch with the best mean AUROC on the validation patients."""

    metric, higher_is_better = "macro_auroc", True

    def __init__(self, config: EcgDanConfig, valid_loader: DataLoader[Any]):
        self.config, self.valid_loader = config, valid_loader
        self.names = config.label_names

    def losses(self, model: nn.Module, batch: Batch, accelerator: Accelerator) -> dict[str, Tensor]:
        """The loss of a batch."""
        return {"loss": model(**batch).loss}

    def validate(self, model: nn.Module, accelerator: Accelerator) -> dict[str, float]:
        """Mean AUROC over the labels with positives and negatives, and the loss."""
        return self.judge(collect(model, self.valid_loader, self._forward, accelerator))

    @staticmethod
    def judge(found: dict[str, np.ndarray]) -> dict[str, float]:
        """Mean AUROC and loss of `logits` (n, labels) against `labels` of 0 and 1."""
        logits, labels = torch.from_numpy(found["logits"]), torch.from_numpy(found["labels"])
        loss = nn.functional.binary_cross_entropy_with_logits(logits, labels)
        return {"macro_auroc": macro_auroc(found["labels"], found["logits"]), "loss": float(loss)}

    @staticmethod
    def _forward(model: nn.Module, batch: Batch) -> Batch:
        inputs = {name: batch[name] for name in INPUTS if name in batch}
        return {"logits": model(**inputs).logits, "labels": batch["labels"]}

    def finish(
        self, model: EcgDanForSequenceClassification, train_loader: DataLoader[Any], accelerator: Accelerator
    ) -> None:
        """Chooses each label's threshold on the validation patients."""
        found = collect(model, self.valid_loader, self._forward, accelerator)
        model.config.thresholds = best_f1_thresholds(found["labels"], _sigmoid(found["logits"]), self.names)

    def predictions(
        self, model: EcgDanForSequenceClassification, loader: DataLoader[Any], dataset: Any, accelerator: Accelerator
    ) -> pd.DataFrame:
        """Subject, the probability of each label, and under `true_LABEL` whether it was given."""
        found = collect(model, loader, self._forward, accelerator)
        columns: dict[str, np.ndarray] = {}
        for label, name in enumerate(self.names):
            columns[name] = _sigmoid(found["logits"][:, label])
            columns[f"true_{name}"] = found["labels"][:, label].astype(int)
        return pd.concat([columns_of(dataset, _SUBJECT_COLUMNS), pd.DataFrame(columns)], axis=1)

    def summary(self, predictions: pd.DataFrame, n: int, seed: int) -> dict[str, Any]:
        """AUROC with intervals, overall and for each label, and F1 at the stored thresholds."""
        patients, thresholds = predictions["patient_id"], self.config.thresholds
        options: dict[str, Any] = {"patient_ids": patients, "thresholds": thresholds, "n": n, "seed": seed}
        return classification_metrics(*self._truth_and_scores(predictions), self.names, **options)

    def subgroups(self, predictions: pd.DataFrame, n: int, seed: int) -> Found:
        """AUROC, and decisions at the stored thresholds, by sex and age."""
        thresholds = self.config.thresholds or {}
        scores = self._truth_and_scores(predictions)
        return classification_subgroups(predictions, *scores, self.names, thresholds, n, seed)

    def _truth_and_scores(self, predictions: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        labels = predictions[[f"true_{name}" for name in self.names]].to_numpy()
        return labels, predictions[self.names].to_numpy()


def _log_hazard_slope(event: np.ndarray, time: np.ndarray, log_hazard: np.ndarray) -> float:
    """Coefficient of the log hazard (n,) in a Cox model of its own outcome; 1 is calibrated, below 1 is too extreme.

    Kept within `_SLOPE_LIMITS`: a few events cannot turn the order of risks round, nor make them extreme.
    """
    fitted = RidgeCox.fit(log_hazard[:, None], event, time, penalizer=_SLOPE_PENALIZER)
    return float(np.clip(fitted.weights[0] / fitted.scale[0], *_SLOPE_LIMITS))


@torch.no_grad()
def _scale_log_hazard(model: EcgDanForSurvival, slopes: Sequence[float]) -> None:
    """Multiplies every log hazard the model will predict, by the slope of its risk."""
    scale = model.risk_head.output.bias.new_tensor(slopes)
    model.risk_head.output.weight.mul_(scale[:, None])
    model.risk_head.output.bias.mul_(scale)
    if model.covariate_head is not None:
        model.covariate_head.weight.mul_(scale[:, None])


def _network(model: nn.Module) -> Any:
    """The network inside a model that is distributed over processes."""
    return getattr(model, "module", model)


def _output_of(found: dict[str, np.ndarray], device: Any = None) -> EcgDanSurvivalOutput:
    """Collected predictions as the network gave them."""
    fields = {name: torch.from_numpy(found[name]).to(device) for name in found if name in _PREDICTED}
    return EcgDanSurvivalOutput(log_hazard=fields["log_hazard"], hazard_logits=fields.get("hazard_logits"))


def outcomes_by_risk(part: Any, config: EcgDanSurvivalConfig) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """For each risk: which rows know its follow-up, (n,), and their codes of the event and follow-up."""
    names = config.endpoint_names
    found = {name: values.numpy() for name, values in outcome_of(part, names).items()}
    known = ~np.isnan(found["event"].reshape(len(part), -1)).T
    columns = known if names else np.repeat(known, config.num_risks, axis=0)
    given = found | {"log_hazard": np.zeros((len(part), config.num_risks))}
    return [(at, codes, times) for at, (codes, times, _) in zip(columns, _by_risk(given), strict=True)]


def _by_risk(found: Mapping[str, np.ndarray]) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Codes of the event, follow-up as [`FollowUp`] takes it, and log hazards, (n,), of each cause or endpoint."""
    event, scores = found["event"], found["log_hazard"].reshape(len(found["event"]), -1)
    if event.ndim == 1:
        times = FollowUp.time_of(found)
        return [(FollowUp.of_cause(event, cause), times, each) for cause, each in enumerate(scores.T, start=1)]
    known = ~np.isnan(event) & ~np.isnan(found["time"])
    entry = found.get("entry", np.zeros(len(event)))
    return [
        (
            event[at, column],
            FollowUp.time_of({"time": found["time"][at, column], "entry": entry[at]}),
            scores[at, column],
        )
        for column, at in enumerate(known.T)
    ]


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits.astype(np.float64)))
