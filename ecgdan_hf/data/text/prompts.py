"""What a free-text prompt asks of an ECG that can be measured.

Statements that measurements define (`definitions.yaml`), sentences (`measured_sentences.yaml`) and comparisons such as
"QRS above 130 ms" are found in the text, the longest first; a "no" before one turns it round.
"""

import re
from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd

from ecgdan_hf.data.text.definitions import definitions
from ecgdan_hf.data.text.measured import MeasuredSentence, exact_sentences, measured_sentences, measurements

_TOKEN = re.compile(r"[a-z]+[\w'-]*|[-+]?\d+(?:\.\d+)?\w*|[<>]")
_TAKEN = "|"
_NUMBER = r"([-+]?\d+(?:\.\d+)?)"
_COMPARISONS = (  # pattern, group of the lower limit, group of the upper limit
    (rf"between {_NUMBER} and {_NUMBER}", 1, 2),
    (rf"(?:below|under|les than|lower than|shorter than|slower than|<) {_NUMBER}", 0, 1),
    (rf"(?:above|over|more than|greater than|longer than|faster than|>) {_NUMBER}", 1, 0),
)
_NEGATIONS = ("no", "not", "without", "never")
_EMPTY = (
    *("and", "or", "with", "of", "in", "on", "is", "are", "wa", "has", "have", "showing", "show", "this", "ecg"),
    *("electrocardiogram", "12", "lead", "tracing", "patient"),
    *("bpm", "beat", "per", "minute", "min", "ms", "mv", "degree", "percent"),
)
"""Words that say nothing of the heart, as [`_tokens`] leaves them."""


@dataclass(frozen=True)
class Claim:
    """One thing that a prompt says: all these sentences, or, negated, not all of them."""

    sentences: tuple[MeasuredSentence, ...]
    is_negated: bool = False

    def probability(self, table: pd.DataFrame) -> np.ndarray:
        """(records,), NaN where a sentence is not known."""
        all_hold = np.prod([sentence.probability(table) for sentence in self.sentences], axis=0)
        return np.asarray(1.0 - all_hold if self.is_negated else all_hold)


@dataclass(frozen=True)
class MeasuredPrompt:
    """What of a prompt can be measured.

    Attributes:
        claims: in the order of the text; none if the prompt is about nothing measured.
        rest: words that are about something else, which only a network can answer.
    """

    claims: tuple[Claim, ...]
    rest: str

    def probability(self, table: pd.DataFrame) -> np.ndarray:
        """(records,): probability that all claims hold; NaN where one is not known, and without a claim.

        `table`: the columns of `measure_table`.
        """
        if not self.claims:
            return np.full(len(table), np.nan)
        return np.asarray(np.prod([claim.probability(table) for claim in self.claims], axis=0))

    def rests_on(self, table: pd.DataFrame) -> list[str]:
        """For each record the measured values that the answer rests on, as one text.

        What has no value that a reader knows, such as the presence of P waves, is a sentence and its probability.
        """
        return ["; ".join(self._values(table.iloc[[row]])) for row in range(len(table))]

    def _values(self, record: pd.DataFrame) -> list[str]:
        said: list[str] = []
        for sentence in (sentence for claim in self.claims for sentence in claim.sentences):
            values = list(exact_sentences(record[list(sentence.where)].iloc[0]).values())
            probability = float(sentence.probability(record)[0])
            said += values or ([] if np.isnan(probability) else [f"{sentence.wordings[0]} {probability:.0%}"])
        return list(dict.fromkeys(said))


def measured_prompt(text: str) -> MeasuredPrompt:
    """Finds what of a prompt can be measured.

    Examples:
        >>> found = measured_prompt("sinus bradycardia")
        >>> [sentence.name for claim in found.claims for sentence in claim.sentences]
        ['rate_below_60', 'p_present']
        >>> found = measured_prompt("wide QRS and no P wave, delta wave")
        >>> [claim.sentences[0].name for claim in found.claims], found.rest
        (['qrs_above_120', 'p_absent'], 'delta wave')
    """
    tokens = _tokens(text)
    placed: list[tuple[int, Claim]] = []
    for phrase, names in _phrases():
        for start in _places(tokens, phrase):
            negation = start > 0 and tokens[start - 1] in _NEGATIONS
            tokens[start - negation : start + len(phrase)] = [_TAKEN] * (len(phrase) + negation)
            placed.append((start, Claim(tuple(measured_sentences()[name] for name in names), negation)))
    comparisons, rest = _comparisons(" ".join(tokens))
    in_order = [claim for _, claim in sorted(placed, key=lambda pair: pair[0])]
    words = [token for token in rest.split() if token not in (_TAKEN, *_EMPTY)]
    return MeasuredPrompt((*in_order, *comparisons), " ".join(words))


def _comparisons(text: str) -> tuple[list[Claim], str]:
    """Claims that compare a measurement with a number, and the text without them."""
    claims: list[Claim] = []
    for name, measurement in _quantities():
        for pattern, low, high in _COMPARISONS:
            found = re.compile(rf"\b{re.escape(' '.join(_tokens(name)))} (?:is |of )?{pattern}")
            for match in found.finditer(text):
                limits = (float(match[low]) if low else -np.inf, float(match[high]) if high else np.inf)
                sentence = MeasuredSentence("comparison", {measurement: limits}, (match[0],), "the prompt")
                claims.append(Claim((sentence,)))
            text = found.sub(_TAKEN, text)
    return claims, text


def _tokens(text: str) -> list[str]:
    """Words in lower case and the singular, numbers and comparison signs; articles are left out."""
    words = [word[:-1] if len(word) > 3 and word.endswith("s") else word for word in _TOKEN.findall(text.lower())]
    return [word for word in words if word not in ("a", "an", "the")]


def _quantities() -> list[tuple[str, str]]:
    """Names of measurements in prompts, the longest first."""
    pairs = [(name, measurement) for measurement, about in measurements().items() for name in about["names"]]
    return sorted(pairs, key=lambda pair: -len(pair[0]))


@cache
def _phrases() -> list[tuple[list[str], tuple[str, ...]]]:
    """What can be said, as tokens, and the sentences that it means; the longest first."""
    said: dict[str, tuple[str, ...]] = {}
    for sentence in measured_sentences().values():
        said |= dict.fromkeys(sentence.wordings, (sentence.name,))
    for definition in definitions().values():
        if definition.measured:
            said |= dict.fromkeys((definition.name, *definition.texts), definition.measured)
    phrases = [(_tokens(text), meaning) for text, meaning in said.items()]
    return sorted(phrases, key=lambda pair: -len(pair[0]))


def _places(tokens: list[str], phrase: list[str]) -> list[int]:
    """Where a phrase begins."""
    ends = len(tokens) - len(phrase) + 1
    return [start for start in range(ends) if tokens[start : start + len(phrase)] == phrase]
