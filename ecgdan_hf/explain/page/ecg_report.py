"""One ECG under three checkpoints, as a cardiologist reads it: measured first, then labels, risk and statements.

Accessible without the figures: every number of a figure is in its section's table, the important ones in its
alternative text. Every number from simulated outcomes is labelled as simulated, and stands in no summary.
`report_sections` draws, `report_pages` writes the files. Research use only.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import pandas as pd

from ecgdan_hf.data.check.signals import check_signal
from ecgdan_hf.data.flag_words import notable
from ecgdan_hf.data.record import EcgRecord
from ecgdan_hf.explain.page.figures import Explanation
from ecgdan_hf.explain.page.first_lines import measured_line, report_line
from ecgdan_hf.explain.page.report_sections import (
    HORIZONS,
    Section,
    ecg_section,
    in_years,
    label_section,
    label_table,
    lead_section,
    percent,
    risk_section,
    risk_table,
    statement_section,
    statement_table,
)
from ecgdan_hf.inference.checkpoints import load_checkpoint
from ecgdan_hf.inference.heads import head_of
from ecgdan_hf.model.feature_extraction_ecgdan import EcgDanFeatureExtractor
from ecgdan_hf.model.modeling_ecgdan import EcgDanForSequenceClassification, EcgDanForSurvival
from ecgdan_hf.model.pipeline_ecgdan import ZeroShotEcgClassificationPipeline

_MAPS_OF = ("labels", "risk")
_ELECTRODES = ("limb_leads_reversed", "chest_leads_exchanged", "amplitude_doubtful", "heart_rate_impossible")


@dataclass(frozen=True)
class Networks:
    """The three checkpoints of a report; see [`Networks.load`]."""

    labels: tuple[EcgDanForSequenceClassification, EcgDanFeatureExtractor]
    statements: ZeroShotEcgClassificationPipeline
    risk: tuple[EcgDanForSurvival, EcgDanFeatureExtractor]

    @classmethod
    def load(cls, labels: str | Path, statements: str | Path, risk: str | Path) -> "Networks":
        """Loads the three checkpoints, from folders or from the Hub.

        Args:
            labels: of `EcgDanForSequenceClassification`.
            statements: of `EcgDanForPreTraining` with the prompts of its statements.
            risk: of `EcgDanForSurvival` with a fitted baseline hazard.

        Raises:
            FileNotFoundError, ValueError: as `load_checkpoint`; a checkpoint of another kind.
        """
        classifier, prepare_labels = _load(labels, "EcgDanForSequenceClassification")
        pretrained, prepare_statements = _load(statements, "EcgDanForPreTraining")
        survival, prepare_risk = _load(risk, "EcgDanForSurvival")
        if not pretrained.config.prompt_labels:
            raise ValueError(f"{statements}: expected a checkpoint that carries prompts, found none")
        if not survival.config.gives_risks:
            raise ValueError(f"{risk}: expected a fitted baseline hazard, found none")
        pipeline = ZeroShotEcgClassificationPipeline(model=pretrained, feature_extractor=prepare_statements)
        return cls((classifier, prepare_labels), pipeline, (survival, prepare_risk))


def _load(source: str | Path, expected: str) -> tuple[Any, EcgDanFeatureExtractor]:
    model, feature_extractor = load_checkpoint(source)
    if head_of(model).name != expected:
        raise ValueError(f"{source}: expected a checkpoint of {expected}, found {type(model).__name__}")
    return model, feature_extractor


@dataclass(frozen=True)
class EcgReport:
    """Report of one ECG."""

    title: str
    facts: str  # one line on the recording and its subject
    findings: tuple[str, ...]  # a line each: measured, said in the file, labels over their threshold, risk
    notices: tuple[str, ...]  # possible problems of the recording
    sections: tuple[Section, ...]  # in reading order

    @classmethod
    def of(cls, record: EcgRecord, networks: Networks, maps_of: str = "labels") -> "EcgReport":
        """Runs the networks on one ECG; `maps_of` is the network whose attention is drawn, "labels" or "risk".

        Raises:
            ValueError: a record that a feature extractor refuses, or an unknown `maps_of`.
        """
        if maps_of not in _MAPS_OF:
            raise ValueError(f"maps_of: expected {' or '.join(_MAPS_OF)}, got {maps_of!r}")
        found = {name: Explanation.of(record, *getattr(networks, name)) for name in _MAPS_OF}
        shown, model, config = getattr(networks, maps_of), networks.risk[0], networks.labels[0].config
        labels, risks = label_table(config, found["labels"]), risk_table(model, found["risk"])
        statements = statement_table(networks.statements, record)
        simulated = ", simulated outcome" if model.config.simulated_outcome else ""
        sections = (
            ecg_section(shown, found[maps_of], maps_of),
            label_section(config, found["labels"], labels),
            lead_section(shown[0].config, found[maps_of], maps_of),
            risk_section(model, found["risk"], risks, simulated),
            statement_section(statements, len(networks.statements.model.config.prompt_labels)),
        )
        said = [measured_line(record), report_line(record), _said_of_labels(labels)]
        said += [] if simulated else [_said_of_risk(networks, risks)]
        title = f"ECG {record.record_id or PurePath(record.source).name or 'without a name'}"
        return cls(title, _facts(record, found), tuple(filter(None, said)), _notices(record, found), sections)


def _facts(record: EcgRecord, found: Mapping[str, Explanation]) -> str:
    person = [f"{record.age:.0f} years" if record.age is not None else "", record.sex or ""]
    used = found["labels"]
    recording = [
        f"{record.duration_seconds:.1f} s at {record.sampling_rate:g} Hz",
        f"{int(used.lead_mask.sum())} of {len(used.lead_mask)} leads",
    ]
    return ", ".join(filter(None, (*person, *recording)))


def _notices(record: EcgRecord, found: Mapping[str, Explanation]) -> tuple[str, ...]:
    """What may be wrong with the recording or its electrodes, in words; the most important first."""
    flags = [flag for part in found.values() for flag in part.flags]
    electrodes = {name: detail for name, detail in check_signal(record).problems.items() if name in _ELECTRODES}
    return tuple(notable([*flags, *(f"{name}:{detail}".rstrip(":") for name, detail in electrodes.items())]))


def _said_of_labels(labels: pd.DataFrame) -> str:
    if labels["threshold"].isna().all():
        first = labels.iloc[0]
        return f"Most probable label: {first['name']} ({first['label']}), {first['probability']:.2f}."
    positive = labels[labels["positive"] == True]  # noqa: E712 (objects, some None)
    names = [f"{row['name']} ({row['label']}, {row['probability']:.2f})" for _, row in positive.iterrows()]
    return f"Labels that reach their threshold: {', '.join(names) or 'none'}."


def _said_of_risk(networks: Networks, risks: pd.DataFrame) -> str:
    known = risks[np.isfinite(risks["risk"])]
    if known.empty:
        return f"No risk: its follow-up is shorter than {HORIZONS[0]} year."
    row = known[known["years"] <= 5].iloc[-1]
    endpoint = networks.risk[0].config.endpoint_text
    return f"Risk of {endpoint} within {in_years(row['years'])}: {percent(row)}."
