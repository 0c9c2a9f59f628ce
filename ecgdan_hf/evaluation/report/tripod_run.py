"""Entries of a run for its report, and the text of numbers, counts and tables.

Any key of `metrics.json` may be absent. Text from files is escaped before it enters Markdown.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

CROSS_VALIDATION, HELD_OUT = "repeated-cv", "held-out"
_ABSENT = "not estimated"
HORIZON_COLUMNS = {
    "predicted_risk": "mean predicted risk",
    "observed_risk": "observed risk",
    "auc": "AUC",
    "brier": "Brier score",
    "scaled_brier": "scaled Brier",
    "calibration_slope": "calibration slope",
    "observed_over_expected": "observed / expected",
    "ici": "ICI",
}


@dataclass(frozen=True)
class Answer:
    """The known part of an item.

    Attributes:
        known: Markdown; empty for no answer.
        missing: what a person still has to state; empty for a complete answer.
    """

    known: str
    missing: str = ""

    @classmethod
    def of(cls, *sentences: str, missing: str = "") -> "Answer":
        """Returns the answer of the sentences that are not empty; no answer where all are."""
        known = " ".join(sentence for sentence in sentences if sentence)
        return cls(known, missing if known else "")


NOTHING = Answer("")


@dataclass(frozen=True)
class Run:
    """An evaluation, read from its files.

    Attributes:
        metrics: content of `metrics.json`.
        recipe: content of `recipe.yaml`; empty where there is none.
        name: of the evaluated model.
    """

    metrics: Mapping[str, Any]
    recipe: Mapping[str, Any]
    name: str

    def get(self, *keys: str) -> Any:
        """Returns the entry of `metrics` under these keys, None where there is none."""
        return dig(self.metrics, *keys)

    @property
    def simulated(self) -> bool:
        """Whether follow-up was drawn by a program."""
        return bool(self.get("simulated_outcome"))

    @property
    def endpoint(self) -> str:
        """The event in words, without "simulated", which `sim` puts in front."""
        return str(self.get("endpoint") or "").removeprefix("simulated ")

    @property
    def sim(self) -> str:
        """ "simulated " before a number that rests on a simulated outcome, else nothing."""
        return "simulated " if self.simulated else ""

    @property
    def mark(self) -> str:
        """ ", simulated outcome" behind the name of a measure, else nothing."""
        return ", simulated outcome" if self.simulated else ""

    @property
    def models(self) -> Mapping[str, Mapping[str, Any]]:
        """Results by model, the evaluated model first."""
        found = self.get("models")
        return found if isinstance(found, Mapping) else {}

    @property
    def horizons(self) -> list[str]:
        """Horizons in years at which any model was evaluated, ascending."""
        found = {str(years) for model in self.models.values() for years in dig(model, "horizons") or {}}
        return sorted(found, key=float)

    def setting(self, *keys: str) -> Any:
        """Returns the entry of `recipe` under these keys, None where there is none."""
        return dig(self.recipe, *keys)

    def years(self, horizons: Iterable[str] | None = None) -> str:
        """Returns horizons, those of the run by default, as words: "5 and 10"."""
        return listed([f"{float(years):g}" for years in (self.horizons if horizons is None else horizons)])

    def division(self) -> str:
        """Returns how the data were divided, in a sentence or two."""
        splits = self.get("splits") or {}
        if self.get("protocol") == HELD_OUT:
            folds = self.get("test_folds")
            judged = f"Judged on folds {listed(folds)}. " if folds else ""
            return f"{judged}Folds that the recipe of a checkpoint names as training data are refused."
        if self.get("protocol") != CROSS_VALIDATION or not splits.get("num_folds"):
            return ""
        seeds, grouped = splits.get("seeds") or [], str(splits.get("grouped_by") or "").removesuffix("_id")
        said = [f"{count(splits['num_folds'])}-fold cross-validation"]
        said += [f"repeated {len(seeds)} times (seeds {', '.join(map(str, seeds))})"] if len(seeds) > 1 else []
        said += [f"stratified by {escape(splits['stratified_by'])}"] if splits.get("stratified_by") else []
        said += [f"all records of one {escape(grouped)} in one fold"] if grouped else []
        return f"{', '.join(said)}."

    def cohort(self) -> str:
        """Returns records, patients and events in one sentence."""
        data = self.get("data") or {}
        if not is_number(data.get("num_records")):
            return ""
        people = f" of {count(data['num_patients'])} patients" if is_number(data.get("num_patients")) else ""
        happened = f", {count(data['num_events'])} {self.sim}events" if is_number(data.get("num_events")) else ""
        late = data.get("num_delayed_entry")
        entered = f" {count(late)} came under observation after the ECG (delayed entry)." if is_number(late) else ""
        return f"{count(data['num_records'])} records{people}{happened}.{entered}"

    def follow_up(self) -> str:
        """Returns median and longest follow-up in one sentence."""
        middle, last = (self.get("data", f"{name}_follow_up_years") for name in ("median", "max"))
        longest = f", longest {_number(last, 1)}" if is_number(last) else ""
        opening = "Simulated follow-up" if self.simulated else "Follow-up"
        return f"{opening}: median {_number(middle, 1)} years{longest}." if is_number(middle) else ""

    def evaluated(self) -> str:
        """Returns the C-index of the evaluated model in one sentence; empty without a model."""
        for name, found in self.models.items():
            return f"{escape(name)}: C-index{self.mark}: {_estimate(dig(found, 'concordance_index'))}."
        return ""

    def models_table(self) -> str:
        """Returns the C-index of each model, its spread, and the lead of the evaluated model."""
        headings = [
            "model",
            f"C-index{self.mark} (95 % interval)",
            f"mean over folds{self.mark} (SD over folds; SD over seeds)",
            f"judged model ahead by{self.mark} (95 % interval)",
            f"corrected t-test p{self.mark}",
        ]
        rows = [
            [escape(name), _estimate(dig(found, "concordance_index")), _spread(found), *_ahead(found, place == 0)]
            for place, (name, found) in enumerate(self.models.items())
        ]
        return _markdown_table(headings, rows) if rows else ""

    def horizons_table(self) -> str:
        """Returns the measures of absolute risk of each model at each horizon."""
        shown = [key for key in HORIZON_COLUMNS if any(self._at(key, years) for years in self.horizons)]
        rows = [
            [
                f"{escape(name)}, {float(years):g} years",
                *(_estimate(dig(found, "horizons", years, key)) for key in shown),
            ]
            for name, found in self.models.items()
            for years in self.horizons
            if dig(found, "horizons", years)
        ]
        headings = ["model, horizon", *(f"{HORIZON_COLUMNS[key]}{self.mark}" for key in shown)]
        return _markdown_table(headings, rows) if rows and shown else ""

    def not_estimable(self) -> str:
        """Returns why measures at a horizon are not estimable, one line each."""
        lines = [
            f"* {escape(name)}, {float(years):g} years, {HORIZON_COLUMNS.get(key, escape(key))}: "
            + escape(reason or "no reason given")
            for name, found in self.models.items()
            for years in self.horizons
            for key, reason in (dig(found, "horizons", years, "not_estimable") or {}).items()
        ]
        return "\n".join(["Not estimable:\n", *lines]) if lines else ""

    def folds_table(self) -> str:
        """Returns records, patients and events of each test fold."""
        folds = self.get("splits", "folds") or []
        rows = [
            [f"seed {fold.get('seed', '?')}, fold {fold.get('fold', '?')}", *_counts(fold)]
            for fold in folds
            if isinstance(fold, Mapping)
        ]
        return _markdown_table(["judged part", "records", "patients", f"{self.sim}events"], rows) if rows else ""

    def subgroups_table(self) -> str:
        """Returns the C-index within subgroups, with their records and events."""
        rows = [
            [f"{escape(name)}: {escape(level)}", _estimate(dig(found, "concordance_index")), *_counts(found)[::2]]
            for name, levels in (self.get("subgroups") or {}).items()
            for level, found in (levels or {}).items()
        ]
        headings = ["subgroup", f"C-index{self.mark} (95 % interval)", "records", f"{self.sim}events"]
        return _markdown_table(headings, rows) if rows else ""

    def participants_table(self) -> str:
        """Returns age, sex and covariates, with the number of missing values."""
        rows = []
        if age := self.get("data", "age"):
            rows.append(
                ["age (years), mean (SD)", _mean(age.get("mean"), age.get("sd")), count(age.get("num_missing"))]
            )
        if sex := self.get("data", "sex"):
            rows.append(["sex, female / male", f"{count(sex.get('female'))} / {count(sex.get('male'))}",
                         count(sex.get("num_missing"))])  # fmt: skip
        known = self.get("covariates") or {}
        for place, name in enumerate(known.get("names") or []):
            mean, spread, missing = (_item(known.get(key), place) for key in ("means", "stds", "num_missing"))
            rows.append([f"covariate {escape(name)}, mean (SD) in training", _mean(mean, spread), count(missing)])
        return _markdown_table(["characteristic", "value", "missing"], rows) if rows else ""

    def _at(self, key: str, years: str) -> bool:
        return any(dig(found, "horizons", years, key) is not None for found in self.models.values())


def dig(found: Any, *keys: str) -> Any:
    """Returns the entry under these keys, None where there is none."""
    for key in keys:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def escape(text: object) -> str:
    """Returns text on one line, with the special characters of Markdown escaped.

    Examples:
        >>> escape("a|b *c*")
        'a\\\\|b \\\\*c\\\\*'
    """
    return re.sub(r"([\\`*_\[\]<>|#~!&])", r"\\\1", " ".join(str(text).split()))


def is_number(value: Any) -> bool:
    """Returns whether a value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def count(value: Any) -> str:
    """Returns text such as "11,575"; "unknown" without a number."""
    return f"{int(value):,}" if is_number(value) else "unknown"


def _number(value: Any, digits: int = 3) -> str:
    """Returns a number with so many digits; "not estimated" without a finite number."""
    return f"{value:.{digits}f}" if is_number(value) else _ABSENT


def _estimate(found: Any, digits: int = 3) -> str:
    """Returns an estimate as text, with its interval where there is one.

    Examples:
        >>> _estimate({"estimate": 0.7, "low": 0.65, "high": 0.75}), _estimate(0.7), _estimate(None)
        ('0.700 (0.650 to 0.750)', '0.700', 'not estimated')
    """
    if not isinstance(found, Mapping):
        return _number(found, digits)
    value, low, high = (_number(found.get(name), digits) for name in ("estimate", "low", "high"))
    return value if _ABSENT in (value, low, high) else f"{value} ({low} to {high})"


def _markdown_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a Markdown table, the first column to the left and the others to the right."""
    lines = [headings, [":--", *["--:"] * (len(headings) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def listed(names: Iterable[Any]) -> str:
    """Returns names as words: "a, b and c"."""
    words = [escape(name) for name in names]
    return " and ".join(part for part in (", ".join(words[:-1]), *words[-1:]) if part)


def _spread(found: Mapping[str, Any]) -> str:
    mean, over_folds = dig(found, "over_folds", "mean"), dig(found, "over_folds", "sd")
    if not is_number(mean):
        return "-"
    return f"{_number(mean)} ({_number(over_folds)}; {_number(dig(found, 'over_seeds', 'sd'))})"


def _ahead(found: Mapping[str, Any], judged: bool) -> tuple[str, str]:
    if judged:
        return "judged", "-"
    p = dig(found, "t_test", "p")
    said = "-" if not is_number(p) else "< 0.001" if p < 0.001 else _number(p)
    return _estimate(dig(found, "ahead")) if dig(found, "ahead") else "-", said


def _counts(found: Any) -> list[str]:
    return [count(dig(found, name)) for name in ("num_records", "num_patients", "num_events")]


def _mean(mean: Any, spread: Any) -> str:
    return f"{_number(mean, 1)} ({_number(spread, 1)})" if is_number(mean) else "unknown"


def _item(values: Any, place: int) -> Any:
    return values[place] if isinstance(values, list | tuple) and place < len(values) else None
