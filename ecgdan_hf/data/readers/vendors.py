"""ECGs of carts, Holter recorders and hospital systems as `EcgRecord`s; ECGDataKit decodes them.

What the library leaves open is settled here: counts without a gain are refused, its warnings become flags or errors,
leads are matched by name, rate and length must be the same for all, and the limb leads that a cart does not store
(MUSE keeps I, II and V1 to V6) are derived.
"""

import re
import warnings
from collections.abc import Sequence
from datetime import date
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from ecgdan_hf.data.readers.declared import agreed_leads, agreed_rate, one_line, to_millivolt
from ecgdan_hf.data.readers.vendor_sizes import SCP_START, check_claims
from ecgdan_hf.data.record import MAX_AGE_YEARS, EcgRecord
from ecgdan_hf.model.conditioning_ecgdan import millivolt_per
from ecgdan_hf.model.configuration_ecgdan import STANDARD_LEADS
from ecgdan_hf.model.leads_ecgdan import LIMB_LEADS, canonical_leads, derive_limb_lead

# name in messages, module and class of ECGDataKit
_READERS = {
    "hl7-aecg": ("HL7 aECG", "hl7_aecg", "HL7aECGParser"),
    "muse": ("GE MUSE XML", "ge_muse_xml", "GEMuseXMLParser"),
    "sierra": ("Philips Sierra XML", "sierra_xml", "SierraXMLParser"),
    "mortara": ("Mortara XML", "mortara_el250", "MortaraEL250Parser"),
    "kardia": ("AliveCor Kardia", "alivecor_kardia", "AliveCorKardiaParser"),
    "dicom": ("DICOM waveform", "dicom_waveform", "DICOMWaveformParser"),
    "scp-ecg": ("SCP-ECG", "scp_ecg", "SCPECGParser"),
    "edf": ("EDF", "edf", "EDFParser"),
    "ishne": ("ISHNE", "ishne_holter", "ISHNEHolterParser"),
    "mfer": ("MFER", "mfer", "MFERParser"),
}
_XML_KINDS = {"annotatedecg": "hl7-aecg", "restingecg": "muse", "restingecgdata": "sierra", "ecg": "mortara"}
_MARKS = {"dicom": (128, b"DICM"), "ishne": (0, b"ISHNE1.0"), "edf": (0, b"0       "), "scp-ecg": (16, b"SCPECG")}

# what a warning of ECGDataKit says where a recording is not whole, not in one piece, or its rate is a guess
_NOT_WHOLE = re.compile(r"mismatch|truncated|shorter than|no waveform data|gaps between|odd number|default of 1000 Hz")
_SEXES = {"M": "male", "F": "female"}


def vendor_kind(head: bytes) -> str | None:
    """Which of the formats here a file is in, by its first 4 kB; None where it is none of them."""
    root = xml_root(head)
    if root is not None:
        return _XML_KINDS.get(root.lower())
    for kind, (at, mark) in _MARKS.items():
        if head[at:].startswith(mark):
            return kind
    if len(head) >= 32 and SCP_START.unpack_from(head)[3] == 0 and head[22:24] + head[28:32] == b"\0\0\7\0\0\0":
        return "scp-ecg"  # no mark before version 2, but the first pointer describes section 0 itself, at byte 7
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
        return "kardia" if _parser("kardia").can_parse(Path(), head) else None
    if head and min(head) < 9:
        return "mfer" if _parser("mfer").can_parse(Path(), head) else None
    return None


def xml_root(head: bytes) -> str | None:
    """Name of the first element of an XML file without its namespace prefix; None where it is no XML."""
    wide = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"<\0": "utf-16-le", b"\0<": "utf-16-be"}.get(head[:2])
    text = head.decode(wide or "utf-8-sig", "replace").lstrip()
    text = re.sub(r"<\?.*?\?>|<!--.*?-->|<!DOCTYPE[^\[>]*(\[.*?\]\s*)?>", "", text, flags=re.DOTALL)
    found = re.match(r"\s*<(?:[\w.-]+:)?([\w.-]+)", text)
    return found.group(1) if found else None


def read_vendor(
    path: Path,
    kind: str,
    sampling_rate: float | None = None,
    unit: str | None = None,
    lead_names: Sequence[str] | None = None,
) -> EcgRecord:
    """Reads one file.

    Args:
        path: the file.
        kind: its format, as `vendor_kind` names it.
        sampling_rate: Hz; may not contradict the file.
        unit: the same.
        lead_names: the same; needed where the file names channels but no leads, in the order of the file.

    Returns:
        The record in millivolt, leads in `STANDARD_LEADS` order and others after them. Flags: `lead_derived:III+...`,
        `not_voltage:NAME` for channels left out, `reader_warning:...` for what the decoder repaired or left out.

    Raises:
        ValueError: a file that is damaged, incomplete or of absurd size, counts without a gain, unknown or repeated
            leads, leads of different rates or lengths, or a contradiction to the arguments.
    """
    title = _READERS[kind][0]
    check_claims(path, kind)
    parsed, flags = _parse_longest(path, kind, title)
    if not parsed.leads:
        raise ValueError(f"{path}: expected a rhythm recording in this {title} file, got none")
    channels = [(lead, _millivolt(lead, path)) for lead in parsed.leads]
    flags += [f"not_voltage:{lead.label}" for lead, signal in channels if signal is None]
    voltages = [(lead, signal) for lead, signal in channels if signal is not None]
    if not voltages:
        found = ", ".join(sorted({_unit(lead) for lead in parsed.leads}))
        raise ValueError(f"{path}: unit: expected leads in mV, uV or V, got {found}")
    _check_unit(unit, [lead for lead, _ in voltages], path)
    names = _lead_names([lead.label for lead, _ in voltages], lead_names, path)
    _check_alike([(name, lead) for name, (lead, _) in zip(names, voltages, strict=True)], path)
    rate = agreed_rate(sampling_rate, _exact_rate(parsed, voltages[0][0]), path)
    leads, derived = _with_limb_leads(dict(zip(names, (signal for _, signal in voltages), strict=True)))
    return EcgRecord(
        signal_mv=np.stack(list(leads.values())),
        sampling_rate=rate,
        lead_names=tuple(leads),
        record_id=path.stem,
        median_beat_mv=_median_beat(parsed, voltages[0][0].sampling_rate, tuple(leads)),
        source=str(path),
        flags=(*flags, *derived),
        **_subject(parsed),
    )


def _parser(kind: str) -> Any:
    _, module, name = _READERS[kind]
    return getattr(import_module(f"ecgdatakit.parsing.parsers.{module}"), name)


def _parse_longest(path: Path, kind: str, title: str) -> tuple[Any, list[str]]:
    """As `_parse`; of several recordings in a DICOM file the longest instead of the first."""
    parsed, flags = _parse(path, kind, title)
    seconds = [group["samples"] / group["sampling_frequency"] for group in _rhythms(parsed)]
    if not seconds or seconds[0] == max(seconds):
        return parsed, flags
    from pydicom import dcmread

    dataset = dcmread(path)
    dataset.WaveformSequence = sorted(
        dataset.WaveformSequence, key=lambda group: -group.NumberOfWaveformSamples / group.SamplingFrequency
    )
    with TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        dataset.save_as(copy)
        return _parse(copy, kind, title)


def _parse(path: Path, kind: str, title: str) -> tuple[Any, list[str]]:
    """The record of ECGDataKit, and flags of what it warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            parsed = _parser(kind)().parse(path)
        except Exception as error:  # what the decoders raise depends on where the damage happens to be
            raise ValueError(f"{path}: expected a whole {title} file, got {_short(error, path)}") from error
    said = [_short(warning.message, path) for warning in caught if issubclass(warning.category, UserWarning)]
    for text in said:
        if _NOT_WHOLE.search(text):
            raise ValueError(f"{path}: expected a whole {title} file, got {text}")
    flags = [f"reader_warning:{text.replace(';', ',')}" for text in dict.fromkeys(said)]
    claimed, stored = (parsed.raw_metadata.get(name, 0) for name in ("ecg_size", "samples_per_lead"))
    if claimed > stored:  # of ISHNE, where some recorders write the most they could hold
        flags.append(f"shorter_than_said:{stored}/{claimed}")
    return parsed, flags


def _short(message: BaseException | str, path: Path) -> str:
    text = one_line(message) if isinstance(message, BaseException) else str(message)
    text = re.sub(rf"( in| of)? ?{re.escape(str(path))}:?| (in|of) {re.escape(path.name)}\b", "", text)
    return text if len(text) <= 200 else f"{text[:200]}..."


def _unit(lead: Any) -> str:
    return (lead.resolution_unit or lead.adc_resolution_unit or "no unit").strip()


def _millivolt(lead: Any, path: Path) -> np.ndarray | None:
    """(samples,) of a lead in millivolt; None where it is no voltage."""
    unit = _unit(lead)
    is_voltage = millivolt_per(unit) is not None or unit.lower() in ("no unit", "counts/mv", "nv")
    if not lead.resolution_unit and not is_voltage:
        return None
    if lead.is_raw and (not lead.resolution_unit or lead.resolution == 0):
        raise ValueError(
            f"{path}: lead {lead.label}: expected a gain above zero and its unit, got ADC counts without a gain"
        )
    try:
        return np.asarray(lead.to_physical().convert_units("mV").samples)
    except ValueError:  # a unit, but of no voltage
        return None


def _check_unit(unit: str | None, leads: list[Any], path: Path) -> None:
    if unit is None:
        return
    factor = to_millivolt(unit, f"{path}: unit")
    said = sorted({_unit(lead) for lead in leads})
    if any(millivolt_per(word) != factor for word in said):
        raise ValueError(f"{path}: unit: the file says {', '.join(said)}, given {unit}")


def _lead_names(labels: list[str], given: Sequence[str] | None, path: Path) -> list[str]:
    """Standard names of the channels; those the caller gives where the file has names that are no leads."""
    plain = [label.rsplit("_", 1)[0] for label in labels]  # ECGDataKit makes II and II_2 of a lead that comes twice
    labels = [stem if stem in labels else label for stem, label in zip(plain, labels, strict=True)]
    try:
        said: list[str] | None = canonical_leads(labels)
    except ValueError as error:
        if given is None:
            raise ValueError(f"{path}: {one_line(error)}") from error
        said = None
    names = canonical_leads(agreed_leads(given, said, path))
    if len(names) != len(labels):
        raise ValueError(f"{path}: lead_names: expected {len(labels)} names, got {len(names)}: {', '.join(names)}")
    return names


def _check_alike(leads: list[tuple[str, Any]], path: Path) -> None:
    """Refuses leads of different rates or lengths."""
    (first, model), *others = leads
    for name, lead in others:
        for what, expected, found in (
            ("rate", f"{model.sampling_rate} Hz", f"{lead.sampling_rate} Hz"),
            ("length", f"{len(model.samples)} samples", f"{len(lead.samples)} samples"),
        ):
            if found != expected:
                raise ValueError(
                    f"{path}: expected leads of one {what}, got {expected} in lead {first} and {found} in lead {name}"
                )


def _exact_rate(parsed: Any, lead: Any) -> float:
    """Hz, with the decimals that ECGDataKit rounds away and keeps beside its record."""
    meta, rate = parsed.raw_metadata, lead.sampling_rate
    if "rhythm_sample_interval_us" in meta:  # SCP-ECG
        rate = 1e6 / meta["rhythm_sample_interval_us"]
    elif "rhythm_time" in meta:  # HL7
        rate = meta["rhythm_time"]["sampling_rate_exact"]
    elif "sampling_rates" in meta:  # MFER
        rate = meta["sampling_rates"][0]
    elif "exact_sampling_rates" in meta:  # EDF
        rate = meta["exact_sampling_rates"].get(lead.label, rate)
    elif "multiplex_groups" in meta:  # DICOM
        rate = next((group["sampling_frequency"] for group in _rhythms(parsed)), rate)
    return round(float(rate), 6)


def _rhythms(parsed: Any) -> list[dict[str, Any]]:
    """The multiplex groups of DICOM without median beats, of which the first is read."""
    groups: list[dict[str, Any]] = parsed.raw_metadata.get("multiplex_groups", [])
    return [group for group in groups if not re.search("MEDIAN|REPRESENTATIVE|AVERAGE", group["label"].upper())]


def _with_limb_leads(recorded: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], list[str]]:
    """All leads, the standard ones first and in order, with the limb leads that follow from I and II; and its flag."""
    absent = [lead for lead in LIMB_LEADS if lead not in recorded] if {"I", "II"} <= set(recorded) else []
    leads = dict(recorded)
    for lead in absent:
        leads[lead] = np.asarray(derive_limb_lead(lead, recorded))
    ordered = {lead: leads[lead] for lead in (*STANDARD_LEADS, *leads) if lead in leads}
    return ordered, [f"lead_derived:{'+'.join(absent)}"] if absent else []


def _median_beat(parsed: Any, rate: float, names: tuple[str, ...]) -> np.ndarray | None:
    """(leads, samples) in millivolt; None where the file has none of the same leads and rate, in a unit."""
    beats = [beat for beat in parsed.median_beats if beat.resolution_unit and beat.sampling_rate == rate]
    if not beats or len({len(beat.samples) for beat in beats}) > 1:
        return None
    try:
        labels = canonical_leads([beat.label for beat in beats])
        signals = [beat.to_physical().convert_units("mV").samples for beat in beats]
    except ValueError:
        return None
    leads, _ = _with_limb_leads(dict(zip(labels, signals, strict=True)))
    return np.stack([leads[name] for name in names]) if set(leads) == set(names) else None


def _subject(parsed: Any) -> dict[str, Any]:
    """Age, sex, patient and report, as the fields of `EcgRecord`; None where the file does not say them."""
    age = _age(parsed)
    statements = (" ".join(part.strip() for part in pair if part.strip()) for pair in parsed.interpretation.statements)
    return {
        "age": age if age is not None and 0 <= age <= MAX_AGE_YEARS else None,
        "sex": _SEXES.get(parsed.patient.sex),
        "patient_id": parsed.patient.patient_id.strip() or None,
        "report": "; ".join(statements) or None,
    }


def _age(parsed: Any) -> float | None:
    """Years: as stated, or from birth to the recording."""
    if parsed.patient.age is not None:
        return float(parsed.patient.age)
    recorded = parsed.recording.date.date() if parsed.recording.date else None
    if recorded is None:
        try:  # a day without a time of day is kept here
            recorded = date.fromisoformat(str(parsed.raw_metadata.get("acquisition_date")))
        except ValueError:
            return None
    born = parsed.patient.birth_date
    return None if born is None else float((recorded - born.date()).days // 365.2425)
