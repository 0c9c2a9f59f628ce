"""Report after TRIPOD+AI on one page: numbers first, the other items answered from the run, and last what is missing.

Source: Collins et al., TRIPOD+AI statement, BMJ 2024;385:e078378, doi 10.1136/bmj-2023-078378: 27 items, 52 with their
parts. Titles and questions are ours (`tripod_items.yaml`); the checklist's words are in the paper. What the run
does not know is listed as **missing**, with who has to state it.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import yaml

from ecgdan_hf.evaluation.report.tripod_answers import ANSWERS
from ecgdan_hf.evaluation.report.tripod_run import NOTHING, Answer, Run, escape, is_number

ITEMS = Path(__file__).with_name("tripod_items.yaml")
_CITATION = (
    "Collins GS, Moons KGM, Dhiman P, et al. TRIPOD+AI statement: updated guidance for reporting clinical prediction "
    "models that use regression or machine learning methods. BMJ 2024;385:e078378. "
    "[doi:10.1136/bmj-2023-078378](https://doi.org/10.1136/bmj-2023-078378)"
)
NUMBERS, MISSING = "Numbers", "What is missing"
_FIRST = ("20a", "23a")  # items that stand under `NUMBERS`
FOLDED = {MISSING: "Show the items that no run knows, and who has to state them"}
"""Sections that a page shows after a click; for `html_page`."""
FOLDED_WORD = "Missing"
_PRIVATE = ("_dir", "push_to_hub", "labels")
"""Endings of recipe entries that name places on someone's disk or account."""


@dataclass(frozen=True)
class _Item:
    """One item of the checklist, in our words.

    Attributes:
        number: such as "5a".
        part: section of a paper it belongs to.
        title: what it is about.
        ask: what has to be stated.
        who: who must state what a run cannot know.
    """

    number: str
    part: str
    title: str
    ask: str
    who: str


def _items() -> list[_Item]:
    """Returns all 52 items and parts of items, in order."""
    return [_Item(**entry) for entry in yaml.safe_load(ITEMS.read_text(encoding="utf-8"))]


def read_author_statements(path: str | Path | None) -> dict[str, str]:
    """Reads the authors' statements on items that no run knows: a YAML file, item -> text; empty for None.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not readable, no mapping, or an item that does not exist.
    """
    if path is None:
        return {}
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected items and texts such as '17: Approved by ...', found {content!r}")
    found = {str(item): str(text) for item, text in content.items()}
    _statements({"statements": found}, _items())
    return found


def tripod_report(
    metrics: Mapping[str, Any],
    recipe: Mapping[str, Any] | None = None,
    figures: Mapping[str, Path] | None = None,
    name: str = "model",
) -> str:
    """Returns the page as Markdown.

    Args:
        metrics: content of `metrics.json` of a survival evaluation; any key may be absent. `statements`, item
            number -> text, is what the author adds by hand ("17": "Approved by ...").
        recipe: content of `recipe.yaml` of the evaluated model, None where there is none.
        figures: caption -> file; the files lie in the folder of the report.
        name: of the evaluated model.

    Raises:
        ValueError: metrics that are no mapping or of another task, or a statement to an item that does not exist.
    """
    _check(metrics)
    run = Run(metrics, recipe or {}, name)
    checklist = _items()
    statements = _statements(metrics, checklist)
    answers = {item.number: _answer(item, run) for item in checklist}
    still = {item.number for item in checklist if not (answers[item.number].known or statements.get(item.number))}
    ordered, parts = _ordered(checklist, still), _opening(run)
    for title, items in ordered.items():
        parts.append(f"## {title}")
        for item in items:
            parts.append(_section(item, answers[item.number], statements.get(item.number, "")))
            parts += _figures(run, figures or {}) if item.number == "23a" else []
        if title == next(iter(ordered)):
            parts += ["## Items of the checklist", _summary(checklist, answers, statements)]
    return "\n\n".join([*parts, *_closing(run)]) + "\n"


def _ordered(checklist: Sequence[_Item], missing: Collection[str]) -> dict[str, list[_Item]]:
    """The items by the sections of the page: numbers, the parts of a paper, what is wholly missing."""
    found: dict[str, list[_Item]] = {NUMBERS: []}
    for item in checklist:
        if item.number not in missing:
            found.setdefault(NUMBERS if item.number in _FIRST else item.part, []).append(item)
    found[MISSING] = [item for item in checklist if item.number in missing]
    return {title: items for title, items in found.items() if items}


def _answer(item: _Item, run: Run) -> Answer:
    found = ANSWERS.get(item.number)
    return found(run) if found else NOTHING


def _check(metrics: Mapping[str, Any]) -> None:
    if not isinstance(metrics, Mapping):
        raise ValueError(f"metrics: expected a mapping, found {type(metrics).__name__}")
    task = metrics.get("task")
    if task not in (None, "survival"):
        raise ValueError(f"metrics: expected task survival, found {task}")


def _statements(metrics: Mapping[str, Any], checklist: Sequence[_Item]) -> dict[str, str]:
    given = {str(key): str(text) for key, text in (metrics.get("statements") or {}).items()}
    unknown = sorted(set(given) - {item.number for item in checklist})
    if unknown:
        raise ValueError(f"statements: expected items of TRIPOD+AI such as 17 or 18a, found {', '.join(unknown)}")
    return given


def _opening(run: Run) -> list[str]:
    said = "**The outcome is simulated.** Follow-up was drawn by a program: no number on this page is about patients."
    return [
        f"# {escape(run.name)}: report after TRIPOD+AI",
        *([f"> {said}"] if run.simulated else []),
        "Research use only. Written by a program from the files of one run; what it does not know is listed as "
        "**missing**, with who has to state it.",
    ]


def _summary(checklist: Sequence[_Item], answers: Mapping[str, Answer], statements: Mapping[str, str]) -> str:
    still = {item.number: _missing(item, answers[item.number], statements) for item in checklist}
    none = [item.number for item in checklist if still[item.number] and not answers[item.number].known]
    part = [number for number, missing in still.items() if missing and number not in none]
    done = len(checklist) - len(none) - len(part)
    lines = [f"Of {len(checklist)} items: {done} answered, {len(part)} answered in part, {len(none)} missing."]
    lines += [f"**Missing**: {', '.join(none)}."] if none else []
    lines += [f"Answered in part: {', '.join(part)}."] if part else []
    return "\n\n".join(lines)


def _missing(item: _Item, answer: Answer, statements: Mapping[str, str]) -> str:
    """Returns what is still to be stated; empty once the authors stated it."""
    if statements.get(item.number):
        return ""
    return answer.missing if answer.known else item.ask


def _section(item: _Item, answer: Answer, statement: str) -> str:
    lines = [f"### {item.number} {item.title}", answer.known]
    if statement:
        lines.append(f"Stated by the {item.who}: {escape(statement)}")
    missing = _missing(item, answer, {item.number: statement})
    if missing:
        lines.append(f"**Missing**, to be stated by the {item.who}: {missing}.")
    return "\n\n".join(line for line in lines if line)


def _figures(run: Run, figures: Mapping[str, Path]) -> list[str]:
    """Returns the figures as Markdown; they are in the folder of the report."""
    opening = "Simulated outcome: " if run.simulated else ""
    return [
        f"![{opening}{escape(str(caption).replace('_', ' '))}](<{PurePath(path).name}>)"
        for caption, path in figures.items()
    ]


def _closing(run: Run) -> list[str]:
    lines = ["## Recipe and computing"]
    shown = {key: value for key, value in run.recipe.items() if not key.endswith(_PRIVATE) and value is not None}
    if shown.get("checkpoint"):
        shown["checkpoint"] = PurePath(str(shown["checkpoint"])).name
    if shown:
        lines.append(f"```yaml\n{yaml.safe_dump(shown, sort_keys=False, allow_unicode=True).strip()}\n```")
    else:
        lines.append("**Missing**: no recipe was found beside this run.")
    if is_number(run.get("seconds")):
        lines.append(f"Time of the run: {run.get('seconds') / 60:.1f} minutes.")
    lines += [_listing(title, run.get(title)) for title in ("hardware", "versions") if run.get(title)]
    return [*lines, "## Source of the checklist", f"{_CITATION} Titles and questions are given here in other words."]


def _listing(title: str, found: Any) -> str:
    entries = found.items() if isinstance(found, Mapping) else [("", found)]
    return (
        f"{title.capitalize()}: {', '.join(escape(f'{key} {value}') for key, value in entries if value is not None)}."
    )
