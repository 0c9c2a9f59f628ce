"""GE CardioSoft resting ECGs (`CardiologyXML`), as UK Biobank's field 20205 holds them.

The layout is not published; this reader agrees with those of ml4h (Broad Institute), BRAVEHEART and others.
`StripData` holds the ten seconds, `RestingECGMeasurements/MedianSamples` the cart's median beat, both with
`SampleRate` (Hz), `Resolution` (microvolt per unit) and a `WaveformData lead="..."` of comma-separated integers for
each lead. Exercise ECGs of the same program (UK Biobank's field 6025) have no ten seconds and are refused.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path, PurePath
from xml.etree.ElementTree import Element, ParseError

import numpy as np
from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import fromstring

from ecgdan_hf.data.readers.declared import Declared, Format, one_line
from ecgdan_hf.data.readers.median_beats import beat_at_rate
from ecgdan_hf.data.record import (
    MAX_AGE_YEARS,
    MEDIAN_UNUSABLE,
    EcgRecord,
    FloatArray,
    canonical_lead,
    check_sampling_rate,
)
from ecgdan_hf.model.conditioning_ecgdan import millivolt_per
from ecgdan_hf.model.leads_ecgdan import LIMB_LEADS

MAX_BYTES = 64 * 2**20  # far more than a resting ECG; XML takes many times its size in memory
EINTHOVEN = "einthoven_samples"

_ROUNDING_UNITS = 4  # derived leads are rounded twice
_ROUNDING_MV = 0.02  # converters with coarser steps than the file's units
_FEW_SAMPLES = 0.01
_SEX = {"m": "male", "male": "male", "f": "female", "female": "female"}
_NUMBER = re.compile(r"[-+]?\d+(\.\d*)?", re.ASCII)
_DATE = re.compile(rb"<ObservationDateTime\b.*?</ObservationDateTime\s*>", re.DOTALL | re.IGNORECASE)


@dataclass(frozen=True)
class _Waveforms:
    """Signals of one block; NaN where the file has a blank."""

    signal_mv: FloatArray
    sampling_rate: float
    lead_names: tuple[str, ...]
    mv_per_unit: float


def observation_date(head: bytes) -> date | None:
    """Returns the day of the recording from the first kilobytes of a file; None if it is blank or not a date."""
    found = _DATE.search(head.replace(b"\0", b""))
    if found is None:
        return None
    parts = [re.search(rf"<{name}\s*>\s*(\d+)\s*<".encode(), found.group()) for name in ("Year", "Month", "Day")]
    try:
        return date(*(int(part.group(1)) for part in parts if part))
    except (TypeError, ValueError):  # a part is missing, or there is no such day
        return None


def read_cardiosoft(content: bytes, source: str) -> EcgRecord:
    """Reads one resting ECG from the content of the file `source`.

    Blanks among the samples become NaN; trailing commas are ignored. There may be fewer than twelve leads, but their
    lengths must be equal and as declared, and the limb leads must obey Einthoven's and Goldberger's laws up to a
    constant and rounding; up to 1 % of samples that do not are flagged `einthoven_samples:LEAD`. A median beat that
    does not fit is left out and flagged `median_beat_unusable`; it is NaN outside the samples that the file calls
    valid.

    Raises:
        ValueError: not XML, not a resting ECG, or leads that are incomplete or contradict each other.
    """
    root = _parse(content, source)
    strip = _waveforms(_strip(root, source), source)
    signal, median = strip.signal_mv, _median_beat(root, strip, source)
    unlawful = _unlawful_leads(strip, source)
    flags = [MEDIAN_UNUSABLE] if median is None and _median_block(root) is not None else []
    flags += [f"{EINTHOVEN}:{'+'.join(unlawful)}"] if unlawful else []
    return EcgRecord(
        signal_mv=signal,
        sampling_rate=strip.sampling_rate,
        lead_names=strip.lead_names,
        record_id=PurePath(source).stem,
        patient_id=_text(_find(root, "PatientInfo/PID")) or None,
        age=_age(root),
        sex=_SEX.get(_text(_find(root, "PatientInfo/Gender")).lower()),
        median_beat_mv=median,
        report=_report(root),
        source=source,
        flags=tuple(flags),
    )


def _parse(content: bytes, source: str) -> Element:
    if len(content) > MAX_BYTES:
        raise ValueError(f"{source}: expected at most {MAX_BYTES >> 20} MB of XML, got {len(content) >> 20} MB")
    try:
        root: Element = fromstring(content)
    except DefusedXmlException:
        raise ValueError(f"{source}: XML that defines entities or refers to other files is not read") from None
    except (ParseError, LookupError, ValueError) as error:  # the last two: an unknown encoding
        found = one_line(error)
        raise ValueError(f"{source}: truncated or damaged XML, or not in its declared encoding: {found}") from error
    if _name(root) != "cardiologyxml":
        raise ValueError(f"{source}: expected a CardioSoft file (CardiologyXML), got <{root.tag}>")
    return root


def _strip(root: Element, source: str) -> Element:
    """The block with the ten seconds."""
    for path in ("StripData", "Strip/StripData"):
        block = _find(root, path)
        if block is not None and _find(block, "WaveformData") is not None:
            return block
    kind = _text(_find(root, "ObservationType"))
    if any(_find(root, name) is not None for name in ("ExerciseMeasurements", "FullDisclosure")):
        found = "an exercise ECG (of UK Biobank, field 6025 instead of 20205)"
    elif _median_block(root) is not None:
        found = "only its median beat; export the ECG with its raw data"
    else:
        found = f"none{f' in a file of type {kind}' if kind else ''}"
    raise ValueError(f"{source}: expected a resting ECG with leads in StripData, got {found}")


def _waveforms(block: Element, source: str) -> _Waveforms:
    where = f"{source}: {block.tag}"
    if _units(_find(block, "SampleRate")) not in ("", "hz"):
        raise ValueError(f"{where}: SampleRate: expected Hz, got {_units(_find(block, 'SampleRate'))}")
    rate = check_sampling_rate(_number(_find(block, "SampleRate")), f"{where}: SampleRate")
    mv_per_unit, count = _mv_per_unit(block, where), _count(block, "ChannelSampleCountTotal")
    samples: dict[str, FloatArray] = {}
    for number, element in enumerate(_all(block, "WaveformData"), start=1):
        lead = canonical_lead(_attribute(element, "lead"))
        if not lead or lead in samples:
            found = f"{lead} twice" if lead else f"no name for number {number}"
            raise ValueError(f"{where}: WaveformData: expected different lead names, got {found}")
        samples[lead] = _samples(element, count, f"{where}: lead {lead}")
    _check_lengths(samples, count, _count(block, "NumberOfLeads"), where)
    return _Waveforms(np.stack(list(samples.values())) * mv_per_unit, rate, tuple(samples), mv_per_unit)


def _mv_per_unit(block: Element, where: str) -> float:
    unit, value = _units(_find(block, "Resolution")), _number(_find(block, "Resolution"))
    mv_per_unit = millivolt_per(unit.removesuffix("perlsb") or "uV")
    if mv_per_unit is None or value is None or not value > 0:
        found = f"{_text(_find(block, 'Resolution'))!r} {unit}".strip()
        raise ValueError(f"{where}: Resolution: expected microvolt per unit (uVperLsb) above zero, got {found}")
    return value * mv_per_unit


def _samples(element: Element, count: int | None, where: str) -> FloatArray:
    """(samples,) in the file's units; blanks are NaN, blanks after the last sample are dropped."""
    text = "".join(element.itertext())
    words = [word.strip() for word in text.split(",")]
    wanted = len(words) - 1 if count is None else count  # without a count, one trailing comma is ignored
    while words and words[-1] == "" and (len(words) > wanted or len(words) == 1):
        words.pop()
    try:
        if re.search(r"[^-+.,\d\s]", text, re.ASCII):  # `float` takes inf, nan and 1_000
            raise ValueError
        return np.array([float(word) if word else np.nan for word in words], dtype=np.float32)
    except ValueError:
        bad = next((word for word in words if word and not _NUMBER.fullmatch(word)), "")
        found = " ".join(bad.split())[:40]
        raise ValueError(f"{where}: expected numbers separated by commas, got {found!r}") from None


def _check_lengths(samples: dict[str, FloatArray], count: int | None, num_leads: int | None, where: str) -> None:
    if num_leads is not None and num_leads != len(samples):
        raise ValueError(f"{where}: NumberOfLeads says {num_leads}, got {len(samples)}: {', '.join(samples)}")
    expected = count or max(len(values) for values in samples.values())
    for lead, values in samples.items():
        if len(values) != expected or not expected:
            raise ValueError(f"{where}: lead {lead}: expected {expected or 'some'} samples, got {len(values)}")


def _median_block(root: Element) -> Element | None:
    """The block of the cart's median beat, if it has samples."""
    for path in ("RestingECGMeasurements/MedianSamples", "MedianSamples"):
        block = _find(root, path)
        if block is not None and _find(block, "WaveformData") is not None:
            return block
    return None


def _median_beat(root: Element, strip: _Waveforms, source: str) -> FloatArray | None:
    """(leads, samples) in the order and at the rate of the strip; None if there is none or it does not fit."""
    block = _median_block(root)
    if block is None:
        return None
    try:
        beat = _waveforms(block, source)
    except ValueError:
        return None
    if set(beat.lead_names) != set(strip.lead_names):
        return None
    signal = beat.signal_mv[[beat.lead_names.index(lead) for lead in strip.lead_names]]
    first, last = (_valid_sample(block, name, beat) for name in ("FirstValid", "LastValid"))
    if first is not None and last is not None and first < last:
        signal[:, :first] = signal[:, last + 1 :] = np.nan
    if np.isnan(signal).all(axis=1).any():
        return None
    return beat_at_rate(signal, beat.sampling_rate, strip.sampling_rate)


def _valid_sample(block: Element, name: str, beat: _Waveforms) -> int | None:
    value = _number(_find(block, name))
    if value is None:
        return None
    if _units(_find(block, name)).startswith("ms"):
        value *= beat.sampling_rate / 1000
    return int(np.clip(round(value), 0, beat.signal_mv.shape[1] - 1))


def _unlawful_leads(strip: _Waveforms, source: str) -> list[str]:
    """Leads with a few samples that contradict I and II; raises ValueError if a lead has many."""
    limb = {
        lead: values
        for lead, values in zip(strip.lead_names, strip.signal_mv, strict=True)
        if lead in LIMB_LEADS and np.nanmax(values, initial=-np.inf) > np.nanmin(values, initial=np.inf)
    }
    if not {"I", "II"} <= set(limb):
        return []
    tolerance = max(_ROUNDING_UNITS * strip.mv_per_unit, _ROUNDING_MV)
    share = {lead: _unlawful_share(limb, lead, tolerance) for lead in limb if lead not in ("I", "II")}
    wrong = [lead for lead in share if share[lead] > _FEW_SAMPLES]
    if wrong:
        named = ["I", "II"] if len(wrong) == len(share) > 1 else wrong
        raise ValueError(
            f"{source}: lead {' or '.join(named)}: contradicts the other limb leads (II = I + III, aVR = -(I + II)/2, "
            "...): leads are swapped or mislabelled, or of unequal gain"
        )
    return [lead for lead in share if share[lead] > 0]


def _unlawful_share(limb: dict[str, FloatArray], lead: str, tolerance: float) -> float:
    """Share of samples at which a lead contradicts I and II, up to a constant, as the baseline is arbitrary."""
    a, b = LIMB_LEADS[lead]
    residual = limb[lead] - a * limb["I"] - b * limb["II"]
    residual = residual[~np.isnan(residual)]
    return float(np.mean(np.abs(residual - np.median(residual)) > tolerance)) if residual.size else 0.0


def _report(root: Element) -> str | None:
    """The conclusions, or the program's diagnosis if there are none."""
    for tag in ("ConclusionText", "DiagnosisText"):
        texts = [" ".join(_text(element).split()) for element in _all(_find(root, "Interpretation"), tag)]
        if texts := [text for text in texts if re.search(r"\w", text)]:
            return "; ".join(texts)
    return None


def _age(root: Element) -> float | None:
    """Years; 0 means blank."""
    element = _find(root, "PatientInfo/Age")
    age = _number(element)
    known = age is not None and 0 < age <= MAX_AGE_YEARS and _units(element)[:1] in ("", "y")
    return age if known else None


def _count(block: Element, name: str) -> int | None:
    value = _number(_find(block, name))
    return int(value) if value is not None and value > 0 else None


def _number(element: Element | None) -> float | None:
    text = _text(element)
    return float(text) if _NUMBER.fullmatch(text) else None


def _units(element: Element | None) -> str:
    return (_attribute(element, "units") or _attribute(element, "unit")).lower()


def _attribute(element: Element | None, name: str) -> str:
    attributes = {} if element is None else {str(key).lower(): str(text) for key, text in element.items()}
    return attributes.get(name, "").strip()


def _text(element: Element | None) -> str:
    return "" if element is None else (element.text or "").strip()


def _name(element: Element) -> str:
    return str(element.tag).rpartition("}")[2].lower()


def _all(root: Element | None, name: str) -> Iterator[Element]:
    return (element for element in (() if root is None else root.iter()) if _name(element) == name.lower())


def _find(root: Element, path: str) -> Element | None:
    """The element at the end of a path of child names, ignoring case."""
    found: Element | None = root
    for name in path.split("/"):
        children: list[Element] = [] if found is None else list(found)
        found = next((child for child in children if _name(child) == name.lower()), None)
    return found


def _read_file(path: Path, declared: Declared, _: str | None) -> EcgRecord:
    record = read_cardiosoft(path.read_bytes(), str(path))
    declared.rate(record.sampling_rate, path)
    declared.leads(record.lead_names, path)
    return record


CARDIOSOFT = Format("cardiosoft", lambda head: b"<CardiologyXML" in head.replace(b"\0", b""), _read_file)  # any UTF
