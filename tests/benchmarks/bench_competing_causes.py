"""Two competing causes with known hazards: how near cumulative incidence and concordance come to the truth.

    python tests/benchmarks/bench_competing_causes.py --records 6000 --seeds 5

Embeddings are normal; the log hazards of both causes are known linear functions of them, and their baselines are
constant for one and rising in time for the other (Weibull). On half of the records, linear heads with Cox and with
discrete hazards are trained by the loss that networks are trained by, and the few-events head is fitted; all are
judged on the other half against the truth. Two rows say where the error of discrete hazards comes from: one whose
weights are held alike over the intervals, and the true hazards, constant in each interval. All outcomes are simulated.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from ecgdan_hf.evaluation.measures.follow_up import FollowUp
from ecgdan_hf.evaluation.measures.survival import concordance_index
from ecgdan_hf.model.configuration_ecgdan import EcgDanSurvivalConfig
from ecgdan_hf.model.discrete_time_ecgdan import discrete_incidence
from ecgdan_hf.model.modeling_ecgdan import EcgDanForSurvival, EcgDanModelOutput
from ecgdan_hf.training.core.few_events import fit_heads, store_heads

YEARS, END = 5.0, 10.0
CUTS = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, END]
NETWORK: dict[str, Any] = {
    "num_samples": 64, "pad_samples": 2, "trunk_channels": [8, 8], "num_attention_heads": 2, "hidden_size": 16,
    "cause_names": ["failure", "death"], "reconstruction_weight": 0.0,
}  # fmt: skip
_RATES, _SHAPES = np.array([0.04, 0.02]), np.array([1.0, 1.4])
_WEIGHTS = np.array([[0.8, 0.5], [-0.6, 0.7]])  # of the first two dimensions, by cause


@dataclass(frozen=True)
class Simulated:
    """Embeddings (n, 16) with two known cause-specific hazards.

    Attributes:
        embedding: input of the heads.
        log_hazard: (n, 2), the truth.
        event, time: (n,), censored at `END` or before, by chance.
    """

    embedding: torch.Tensor
    log_hazard: np.ndarray
    event: np.ndarray
    time: np.ndarray

    @classmethod
    def of(cls, records: int, seed: int) -> "Simulated":
        """Draws so many records."""
        rng = np.random.default_rng(seed)
        embedding = rng.normal(size=(records, NETWORK["hidden_size"]))
        log_hazard = embedding[:, :2] @ _WEIGHTS.T
        times = (rng.exponential(size=(records, 2)) / (_RATES * np.exp(log_hazard))) ** (1 / _SHAPES)
        end = np.minimum(END, rng.exponential(25.0, records))
        first = times.min(axis=1)
        event = np.where(first <= end, times.argmin(axis=1) + 1, 0)
        return cls(torch.from_numpy(embedding).float(), log_hazard, event, np.minimum(first, end))

    def incidence(self, years: float = YEARS, steps: int = 2000) -> np.ndarray:
        """True cumulative incidence by `years`: (n, 2), by integration."""
        edges = np.linspace(0, years, steps + 1)
        hazards = np.exp(self.log_hazard)[:, :, None] * (_RATES[:, None] * np.diff(edges ** _SHAPES[:, None]))
        total = hazards.sum(axis=1)
        before = np.exp(total - np.cumsum(total, axis=1))
        return (before[:, None] * -np.expm1(-total)[:, None] * hazards / total[:, None]).sum(axis=2)

    def part(self, rows: slice) -> "Simulated":
        """Some of the records."""
        return Simulated(self.embedding[rows], self.log_hazard[rows], self.event[rows], self.time[rows])


class _Given(nn.Module):
    """In the place of the encoder: the embedding itself is the input."""

    def forward(self, input_values: torch.Tensor, *_: Any) -> EcgDanModelOutput:
        return EcgDanModelOutput(pooler_output=input_values)


def network(**given: Any) -> EcgDanForSurvival:
    """A survival model with a linear head on given embeddings."""
    model = EcgDanForSurvival(EcgDanSurvivalConfig(**NETWORK, survival_hidden_size=0, **given)).eval()
    model.ecgdan = _Given()
    return model


def few_events(train: Simulated) -> EcgDanForSurvival:
    """The few-events head."""
    model, pooled = network(), train.embedding.double().numpy()
    everyone = np.ones(len(pooled), dtype=bool)
    outcomes = [(everyone, FollowUp.of_cause(train.event, cause), train.time) for cause in (1, 2)]
    heads = fit_heads(pooled, np.empty((len(pooled), 0)), outcomes)
    store_heads(model, heads)
    with_baseline(model, train)
    return model


def trained(hazard: str, steps: int = 150, alike: float = 0.0) -> Callable[[Simulated], EcgDanForSurvival]:
    """Heads trained by the loss of the network, with Cox or discrete hazards.

    `alike` is the precision of a normal prior of how far weights of an interval are from their mean over intervals.
    """

    def train_on(train: Simulated) -> EcgDanForSurvival:
        event, time = torch.from_numpy(train.event), torch.from_numpy(train.time).float()
        if hazard == "discrete":
            model = network(hazard=hazard, hazard_cuts=CUTS)
            model.start_hazard(event, time)
        else:
            model = network()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
        for _ in range(steps):
            loss = model(train.embedding, event=event, time=time).loss
            weights = model.risk_head.output.weight.unflatten(0, (len(_RATES), -1))
            apart = (weights - weights.mean(dim=1, keepdim=True)).square().sum()
            loss = loss + model.config.survival_weight * alike / (2 * len(time)) * apart
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if hazard == "cox":
            with_baseline(model, train)
        return model

    return train_on


@torch.no_grad()
def with_baseline(model: EcgDanForSurvival, train: Simulated) -> None:
    """Fits the baselines to the training records."""
    found = model(train.embedding, return_loss=False).log_hazard
    model.fit_baseline(found.double(), torch.from_numpy(train.event), torch.from_numpy(train.time))


@torch.inference_mode()
def judge(model: EcgDanForSurvival, test: Simulated) -> dict[str, dict[str, float]]:
    """By cause: mean and mean absolute error of the incidence at `YEARS`, concordance, and the attainable one."""
    output = model(test.embedding, return_loss=False)
    risk = model.risks(output, [YEARS]).risk[:, :, 0].double().numpy()
    return _judge_risk(risk, output.log_hazard.double().numpy(), test)


def true_hazards(test: Simulated) -> dict[str, dict[str, float]]:
    """As `judge`, for the true hazards, constant in each interval: what the cut points alone cost."""
    steps = np.exp(test.log_hazard)[:, :, None] * (_RATES[:, None] * np.diff(np.array(CUTS) ** _SHAPES[:, None]))
    logits = torch.from_numpy(np.log(np.expm1(steps)))
    risk = discrete_incidence(logits, torch.tensor(CUTS), torch.tensor([YEARS]))[:, :, 0].numpy()
    return _judge_risk(risk, test.log_hazard, test)


def _judge_risk(risk: np.ndarray, log_hazard: np.ndarray, test: Simulated) -> dict[str, dict[str, float]]:
    error, found = risk - test.incidence(), {}
    for column, name in enumerate(NETWORK["cause_names"]):
        truth = FollowUp.of_cause(test.event, column + 1), test.time
        found[name] = {
            "bias": float(error[:, column].mean()),
            "absolute error": float(np.abs(error[:, column]).mean()),
            "C": concordance_index(*truth, log_hazard[:, column]),
            "attainable C": concordance_index(*truth, test.log_hazard[:, column]),
        }
    return found


MODELS: dict[str, Callable[[Simulated], EcgDanForSurvival]] = {
    "Cox hazards": trained("cox"),
    "discrete hazards": trained("discrete"),
    "discrete hazards, alike over time": trained("discrete", alike=300.0),
    "few-events head": few_events,
}


TRUE = "true hazards, constant in each interval"


def compare(records: int, seed: int, names: Sequence[str] = (*MODELS, TRUE)) -> dict[str, dict[str, dict[str, float]]]:
    """What `judge` finds of each model, trained on the first half of the records."""
    torch.manual_seed(seed)
    cohort = Simulated.of(records, seed)
    train, test = (cohort.part(rows) for rows in (slice(records // 2), slice(records // 2, None)))
    return {name: true_hazards(test) if name == TRUE else judge(MODELS[name](train), test) for name in names}


def main() -> None:
    """Prints a table of means over seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=6000)
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args()
    found = [compare(args.records, seed) for seed in range(args.seeds)]
    print(f"simulated: {args.records // 2} training records, means of {args.seeds} cohorts")
    print("| model | cause | bias of the 5-year incidence | mean absolute error | C | attainable C |")
    print("|---|---|---|---|---|---|")
    for name in found[0]:
        for cause, entries in found[0][name].items():
            means = [np.mean([each[name][cause][entry] for each in found]) for entry in entries]
            print(f"| {name} | {cause} | {' | '.join(f'{value:.3f}' for value in means)} |")


if __name__ == "__main__":
    main()
