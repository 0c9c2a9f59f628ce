"""Evaluation of zero-shot classification with text prompts, with permuted prompts and shuffled networks as controls.

A prompt is the text of one SCP statement; its logit is the scaled cosine between that text and the ECG (CLIP, Radford
et al., 2021). A superclass has no text: it is scored from its statements. Two controls should fall to chance: a
network trained on shuffled pairs of record and text, and prompts permuted among the labels. A class of many
statements keeps some of them in any permutation, so its permuted value is above one half.

Functions of arrays and tables; the network is not imported.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import log_softmax, logsumexp

from ecgdan_hf.data.sources.ptbxl import LABEL_LEVELS, codes_by_label
from ecgdan_hf.evaluation.measures.classification import classification_metrics, macro_auroc
from ecgdan_hf.evaluation.measures.intervals import FloatArray, bootstrap_difference

AGGREGATIONS = ("logsumexp", "max", "mean")
LEVELS = ("superclass", "subclass", "rhythm", "statement")
MIN_POSITIVES = 10
"""Positives a class needs to be judged; the AUROC of fewer says more about them than about the network."""

GroupScore = Callable[[npt.ArrayLike, Sequence[str], Mapping[str, Sequence[str]]], FloatArray]


def group_scores(
    prompt_logits: npt.ArrayLike,
    prompt_labels: Sequence[str],
    groups: Mapping[str, Sequence[str]],
    aggregation: str = "logsumexp",
    temperature: float = 1.0,
    softmax: bool = False,
) -> FloatArray:
    r"""Returns a score of each class from the prompts of its statements.

    With logits \(l_k / \tau\), normalised over all prompts (`softmax`) or as they are: `"logsumexp"`
    \(\log \sum_{k \in g} e^{l_k}\), which after normalisation is the logarithm of the class's share; `"max"`, its best
    statement; `"mean"`, which rare statements of a large class pull down.

    Args:
        prompt_logits: (n, K), scaled cosines of ECG and prompt.
        prompt_labels: label of each prompt.
        groups: class -> labels of its prompts; labels without a prompt are left out.
        aggregation: one of `AGGREGATIONS`.
        temperature: logits are divided by it.
        softmax: take log probabilities over all K prompts instead of logits, so that prompts compete for a record;
            worse on PTB-XL once texts are varied in pretraining, because a record has several statements.

    Returns:
        (n, classes).

    Raises:
        ValueError: shapes that do not fit, an unknown aggregation, a temperature that is not positive, or a class
            without any prompt.

    Examples:
        Two statements of one class are both unlikely, that of the other is not.

        >>> groups = {"A": ["a1", "a2"], "B": ["b"]}
        >>> np.exp(group_scores([[0.0, 0.0, np.log(2)]], ["a1", "a2", "b"], groups, softmax=True)).round(2)
        array([[0.5, 0.5]])
        >>> np.exp(group_scores([[0.0, 0.0, np.log(2)]], ["a1", "a2", "b"], groups, "max", softmax=True)).round(2)
        array([[0.25, 0.5 ]])
    """
    logits, labels = np.asarray(prompt_logits, dtype=np.float64), list(prompt_labels)
    if logits.ndim != 2 or logits.shape[1] != len(labels):
        raise ValueError(f"prompt_logits: expected (records, {len(labels)} prompts), got shape {logits.shape}")
    if aggregation not in AGGREGATIONS:
        raise ValueError(f"aggregation: expected one of {', '.join(AGGREGATIONS)}, got {aggregation!r}")
    if not temperature > 0:
        raise ValueError(f"temperature: expected a positive number, got {temperature}")
    values = logits / temperature
    if softmax:
        values = log_softmax(values, axis=1)
    combine = {"logsumexp": logsumexp, "max": np.max, "mean": np.mean}[aggregation]
    columns = [combine(values[:, _members(labels, name, members)], axis=1) for name, members in groups.items()]
    return np.stack(columns, axis=1) if columns else np.empty((len(values), 0))


@dataclass(frozen=True)
class Level:
    """The classes of one level of the labels that can be evaluated.

    Attributes:
        name: such as `"superclass"`.
        groups: class -> the prompts it is scored from.
        truth: (n, classes), 1 present, 0 absent.
        not_judged: class -> why not.
    """

    name: str
    groups: dict[str, list[str]]
    truth: FloatArray
    not_judged: dict[str, str]

    @staticmethod
    def groups_of(statements: pd.DataFrame, level: str) -> dict[str, list[str]]:
        """Returns the classes of a level and the SCP statements of each.

        Args:
            statements: `scp_statements.csv`, indexed by code.
            level: `"superclass"`, `"subclass"`, `"rhythm"` (each rhythm statement by itself) or `"statement"` (each of
                all).

        Returns:
            Class -> codes, in the order of the source.

        Raises:
            ValueError: an unknown level.
        """
        if level not in LEVELS:
            raise ValueError(f"level: expected one of {', '.join(LEVELS)}, got {level!r}")
        if level not in LABEL_LEVELS:
            return {str(code): [str(code)] for code in statements.index[statements["rhythm"] == 1]}
        return codes_by_label(statements, level)

    @classmethod
    def judged(
        cls,
        name: str,
        groups: Mapping[str, Sequence[str]],
        labels: npt.ArrayLike,
        label_names: Sequence[str],
        prompt_labels: Sequence[str],
        min_positives: int = MIN_POSITIVES,
    ) -> "Level":
        """Returns the classes of a level that these records and prompts can evaluate.

        Args:
            name: of the level.
            groups: class -> statements; a record has the class if it has one of them.
            labels: (n, statements) of 0 and 1.
            label_names: statement of each column of `labels`.
            prompt_labels: what there are prompts for: statements, or a class itself where none of its
                statements has one.
            min_positives: records a class needs.
        """
        truth, columns = np.asarray(labels, dtype=np.float64), {label: i for i, label in enumerate(label_names)}
        kept: dict[str, list[str]] = {}
        present: list[FloatArray] = []
        why: dict[str, str] = {}
        for group, members in groups.items():
            known = [columns[member] for member in members if member in columns]
            has = truth[:, known].max(axis=1) if known else np.zeros(len(truth))
            prompts = [member for member in members if member in prompt_labels]
            prompts = prompts or [group] * (group in prompt_labels)
            positives = int(has.sum())
            if not prompts:
                why[group] = "no prompt"
            elif positives < min_positives or not 0 < positives < len(truth):
                why[group] = f"{positives} positives"
            else:
                kept[group] = prompts
                present.append(has)
        return cls(name, kept, np.stack(present, axis=1) if present else np.empty((len(truth), 0)), why)

    def metrics(
        self,
        prompt_logits: npt.ArrayLike,
        prompt_labels: Sequence[str],
        patient_ids: npt.ArrayLike,
        controls: Mapping[str, tuple[npt.ArrayLike, Sequence[str]]] | None = None,
        score: GroupScore = group_scores,
        permutations: int = 20,
        n: int = 1000,
        seed: int = 0,
    ) -> dict[str, Any]:
        """Returns the macro AUROC with its interval, and the controls.

        Args:
            prompt_logits, prompt_labels: (n, K) of the network that is judged, and the label of each column.
            patient_ids: (n,).
            controls: name -> logits and labels of another network on the same records.
            score: [`group_scores`], with its options bound.
            permutations: number of permutations of the prompts among the labels.
            n, seed: of the bootstrap; `seed` also of the permutations.

        Returns:
            What [`classification_metrics`] returns, `not_judged`, `permuted_prompts` (`mean`, `low`, `high`: the
            range; `permutations`), and under `controls` the same for each network with `ahead`, the paired difference
            "judged minus this".

        Raises:
            ValueError: no class to judge, or what [`group_scores`] refuses.
        """
        if not self.groups:
            raise ValueError(f"{self.name}: expected at least one class to judge, got none of {len(self.not_judged)}")
        names, scores = list(self.groups), score(prompt_logits, prompt_labels, self.groups)
        found = classification_metrics(self.truth, scores, names, patient_ids, n=n, seed=seed, min_positives=1)
        found["not_judged"] = self.not_judged
        found["permuted_prompts"] = self._permuted_auroc(prompt_logits, prompt_labels, score, permutations, seed)
        found["controls"] = {}
        for name, (logits, labels) in (controls or {}).items():
            theirs = score(logits, labels, self.groups)
            options: dict[str, Any] = {"patient_ids": patient_ids, "n": n, "seed": seed}
            ahead = bootstrap_difference(macro_auroc, self.truth, scores=scores, baseline_scores=theirs, **options)
            found["controls"][name] = {
                "macro_auroc": macro_auroc(self.truth, theirs),
                "ahead": ahead.as_dict(),
                "permuted_prompts": self._permuted_auroc(logits, labels, score, permutations, seed),
            }
        return found

    def _permuted_auroc(
        self,
        prompt_logits: npt.ArrayLike,
        prompt_labels: Sequence[str],
        score: GroupScore,
        permutations: int,
        seed: int,
    ) -> dict[str, float]:
        """Returns the macro AUROC with the prompts permuted at random among the labels: mean, and range.

        About one half for single statements (a label keeps its own prompt in 1 of K permutations); above it for
        classes of many statements, which keep some of theirs.
        """
        logits, rng = np.asarray(prompt_logits, dtype=np.float64), np.random.default_rng(seed)
        values = [
            macro_auroc(self.truth, score(logits[:, rng.permutation(logits.shape[1])], prompt_labels, self.groups))
            for _ in range(permutations)
        ]
        if not values:
            return {}
        mean = sum(values) / len(values)
        return {"mean": mean, "low": min(values), "high": max(values), "permutations": permutations}


def _members(labels: list[str], group: str, members: Sequence[str]) -> list[int]:
    columns = [labels.index(member) for member in members if member in labels]
    if not columns:
        raise ValueError(f"groups: expected a prompt for {group}, one of {', '.join(members)}; got none of them")
    return columns
