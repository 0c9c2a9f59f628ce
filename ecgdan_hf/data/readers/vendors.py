"""ECGs of carts, Holter recorders and hospital systems as `EcgRecord`s; ECGDataKit decodes them.

This module adds the checks that the library leaves to its user: counts without a gain are refused, its warnings
become flags or errors, leads are matched by name, all leads must have one rate and length, and limb leads that a cart
does not store (MUSE keeps I, II and V1 to V6) are derived.
"""

import re
import warnings
from datetime import date
from functools import lru_cache, partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from ecgdan_hf.data.lead_checks import NO_SAMPLE
from ecgdan_hf.data.readers.aecg import parse_aecg
from ecgdan_hf.data.readers.declared import Declared, Format, one_line
from ecgdan_hf.data.readers.dicom import parse_dicom
from ecgdan_hf.data.readers.median_beats import with_plausible_beat
from ecgdan_hf.data.readers.vendor_sizes import SCP_START, check_claims
from ecgdan_hf.data.readers.wfdb_records import OTHER_RATE
from ecgdan_hf.data.record import MAX_AGE_YEARS, EcgRecord
from ecgdan_hf.model.conditioning_ecgdan import millivolt_per, without_codes
from ecgdan_hf.model.contract_ecgdan import STANDARD_LEADS
from ecgdan_hf.model.leads_ecgdan import LIMB_LEADS, canonical_leads, derive_limb_lead, known_lead

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

_PREPARE = {"dicom": parse_dicom, "hl7-aecg": parse_aecg}

# warnings of ECGDataKit about a recording that is incomplete or in pieces, or whose rate is a guess
_NOT_WHOLE = re.compile(r"mismatch|truncated|shorter than|no waveform data|gaps between|odd number|default of 1000 Hz")
# MUSE's LeadOff, and Channel Status (003A,0205) of DICOM
_STATUS = ("LeadOff", "channel_status")
_OFF = re.compile(r"\b(TRUE|YES|1|DISCONNECTED|INVALID|TEST DATA)\b")
_QUESTIONABLE = re.compile(r"\b(QUESTIONABLE|UNCALIBRATED|UNZEROED)\b")
_SEXES = {"M": "male", "F": "female"}


@lru_cache(maxsize=1)  # each format of the table asks for the same head
def _kind(head: bytes) -> str | None:
    root = xml_root(head)
    if root is not None:
        return _XML_KINDS.get(root.lower())
    if head[132:] and _is_bare_dicom(head):
        return "dicom"
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


def _is_bare_dicom(head: bytes) -> bool:
    """DICOM without its 128 bytes and `DICM`, as some carts write it: group 2 or 8 first, and a UID of DICOM."""
    tag, known = head[:4], (b"\x02\x00", b"\x08\x00")
    return tag[:2] in known and tag[3:4] == b"\x00" and b"1.2.840.10008." in head[:256]


def xml_root(head: bytes) -> str | None:
    """Name of the first element of an XML file without its namespace prefix; None if the file is not XML."""
    wide = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"<\0": "utf-16-le", b"\0<": "utf-16-be"}.get(head[:2])
    text = head.decode(wide or "utf-8-sig", "replace").lstrip()
    text = re.sub(r"<\?.*?\?>|<!--.*?-->|<!DOCTYPE[^\[>]*(\[.*?\]\s*)?>", "", text, flags=re.DOTALL)
    found = re.match(r"\s*<(?:[\w.-]+:)?([\w.-]+)", text)
    return found.group(1) if found else None


def _read(kind: str, path: Path, declared: Declared, _: str | None) -> EcgRecord:
    """Reads one file; leads in `STANDARD_LEADS` order, others after them.

    Leads that the cart says were off are NaN, and so are those derived from them.

    Flags: `lead_off:V1` and `lead_questionable:V1` (so says the cart), `lead_derived:III+...`,
    `not_voltage:NAME` for channels left out, `reader_warning:...` for what the decoder
    repaired or left out.
    """
    title = _READERS[kind][0]
    check_claims(path, kind)
    parse = partial(_parse, kind=kind, title=title)
    prepare = _PREPARE.get(kind)
    parsed, flags = parse(path) if prepare is None else prepare(path, parse)
    if not parsed.leads:
        raise ValueError(f"{path}: expected a rhythm recording in this {title} file, got none")
    channels = [(lead, _millivolt(lead, path)) for lead in parsed.leads]
    flags += [f"not_voltage:{lead.label}" for lead, signal in channels if signal is None]
    voltages = [(lead, signal) for lead, signal in channels if signal is not None]
    if not voltages:
        found = ", ".join(sorted({_unit(lead) for lead in parsed.leads}))
        raise ValueError(f"{path}: unit: expected leads in mV, uV or V, got {found}")
    voltages, more = _alike(_leads_among(voltages, declared))
    flags += [f"not_a_lead:{lead.label}" for lead, _ in channels if _known(lead) is None and lead not in _of(voltages)]
    flags += more
    declared.check_unit([_unit(lead) for lead, _ in voltages], path)
    names = _lead_names([lead.label for lead, _ in voltages], declared, path)
    off, questionable = _doubted([(name, lead) for name, (lead, _) in zip(names, voltages, strict=True)], path)
    flags += [f"lead_off:{'+'.join(off)}"] if off else []
    flags += [f"lead_questionable:{'+'.join(questionable)}"] if questionable else []
    skewed = [name for name, (lead, _) in zip(names, voltages, strict=True) if "sample_skew_ms" in lead.annotations]
    flags += [f"channel_skew:{'+'.join(skewed)}"] if skewed else []
    _check_alike([(name, lead) for name, (lead, _) in zip(names, voltages, strict=True)], path)
    rate = declared.rate(_exact_rate(parsed, voltages[0][0]), path)
    signal_mv, coded = without_codes(np.stack([signal for _, signal in voltages]), rate)  # before leads are derived
    flags += [f"{NO_SAMPLE}:{'+'.join(np.array(names)[coded])}"] if coded.any() else []
    signal_mv[[name in off for name in names]] = np.nan
    leads, derived = _with_limb_leads(dict(zip(names, signal_mv, strict=True)))
    record = EcgRecord(
        signal_mv=np.stack(list(leads.values())),
        sampling_rate=rate,
        lead_names=tuple(leads),
        record_id=path.stem,
        median_beat_mv=_median_beat(parsed, voltages[0][0].sampling_rate, tuple(leads), off),
        source=str(path),
        flags=(*flags, *derived),
        **_subject(parsed),
    )
    return record if parsed.raw_metadata.get("median_resolution_stated", True) else with_plausible_beat(record)


def _parser(kind: str) -> Any:
    _, module, name = _READERS[kind]
    return getattr(import_module(f"ecgdatakit.parsing.parsers.{module}"), name)


def _parse(path: Path, kind: str, title: str) -> tuple[Any, list[str]]:
    """The record of ECGDataKit, and its warnings as flags."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            parsed = _parser(kind)().parse(path)
        except Exception as error:  # the type depends on where the damage is
            raise ValueError(f"{path}: expected a whole {title} file, got {_short(error, path)}") from error
    said = [_short(warning.message, path) for warning in caught if issubclass(warning.category, UserWarning)]
    for text in said:
        if _NOT_WHOLE.search(text):
            raise ValueError(f"{path}: expected a whole {title} file, got {text}")
    flags = [f"reader_warning:{text.replace(';', ',')}" for text in dict.fromkeys(said)]
    claimed, stored = (parsed.raw_metadata.get(name, 0) for name in ("ecg_size", "samples_per_lead"))
    if claimed > stored:  # ISHNE: some recorders write their capacity
        flags.append(f"shorter_than_said:{stored}/{claimed}")
    return parsed, flags


def _short(message: BaseException | str, path: Path) -> str:
    text = one_line(message) if isinstance(message, BaseException) else str(message)
    text = re.sub(rf"( in| of)? ?{re.escape(str(path))}:?| (in|of) {re.escape(path.name)}\b", "", text)
    return text if len(text) <= 200 else f"{text[:200]}..."


def _unit(lead: Any) -> str:
    return (lead.resolution_unit or lead.adc_resolution_unit or "no unit").strip()


def _millivolt(lead: Any, path: Path) -> np.ndarray | None:
    """(samples,) of a lead in millivolt; None if it is not a voltage."""
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
    except ValueError:  # a unit other than a voltage
        return None


Channels = list[tuple[Any, np.ndarray]]


def _of(voltages: Channels) -> list[Any]:
    return [lead for lead, _ in voltages]


def _known(lead: Any) -> str | None:
    """The lead of a channel; ECGDataKit renames a second lead II to II_2."""
    return known_lead(lead.label) or known_lead(lead.label.rsplit("_", 1)[0])


def _leads_among(voltages: Channels, declared: Declared) -> Channels:
    """The channels that are leads known here; all if none is, or if the caller names all of them."""
    known = [(lead, signal) for lead, signal in voltages if _known(lead) is not None]
    named = declared.lead_names is not None and len(declared.lead_names) == len(voltages)
    return voltages if named or not known else known


def _alike(voltages: Channels) -> tuple[Channels, list[str]]:
    """The channels of the most frequent rate and length, and flags of the others."""
    kinds = [(lead.sampling_rate, len(lead.samples)) for lead, _ in voltages]
    usual = max(dict.fromkeys(kinds), key=kinds.count)
    others = [lead.label for (lead, _), kind in zip(voltages, kinds, strict=True) if kind != usual]
    kept = [channel for channel, kind in zip(voltages, kinds, strict=True) if kind == usual]
    if len(kept) <= len(others):  # no rate is that of most: `_check_alike` refuses
        return voltages, []
    return kept, [f"{OTHER_RATE}:{label}" for label in others]


def _lead_names(labels: list[str], declared: Declared, path: Path) -> list[str]:
    """Standard names of the channels; the caller's names if the file's are not those of leads."""
    plain = [label.rsplit("_", 1)[0] for label in labels]  # ECGDataKit renames a second lead II to II_2
    labels = [stem if stem in labels else label for stem, label in zip(plain, labels, strict=True)]
    try:
        said: list[str] | None = canonical_leads(labels)
    except ValueError as error:
        if declared.lead_names is None:
            raise ValueError(f"{path}: {one_line(error)}") from error
        said = None
    names = canonical_leads(declared.leads(said, path))
    if len(names) != len(labels):
        raise ValueError(f"{path}: lead_names: expected {len(labels)} names, got {len(names)}: {', '.join(names)}")
    return names


def _doubted(leads: list[tuple[str, Any]], path: Path) -> tuple[list[str], list[str]]:
    """Leads that were off, or hold no patient's signal, and questionable ones, by the words of the cart."""
    said = {name: " ".join(str(lead.annotations.get(key, "")) for key in _STATUS).upper() for name, lead in leads}
    off = [name for name, words in said.items() if _OFF.search(words)]
    if len(off) == len(leads):
        raise ValueError(f"{path}: expected a lead that was on, but the file says that all were off: {', '.join(off)}")
    return off, [name for name, words in said.items() if name not in off and _QUESTIONABLE.search(words)]


def _check_alike(leads: list[tuple[str, Any]], path: Path) -> None:
    """Rejects leads of different rates or lengths."""
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
    """Hz, with the decimals that ECGDataKit keeps only in its metadata."""
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
    """The multiplex groups of DICOM that are not median beats; the first is read."""
    groups: list[dict[str, Any]] = parsed.raw_metadata.get("multiplex_groups", [])
    return [group for group in groups if not re.search("MEDIAN|REPRESENTATIVE|AVERAGE", group["label"].upper())]


def _with_limb_leads(recorded: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], list[str]]:
    """All leads, standard ones first, with the limb leads derived from I and II; and the flag of that."""
    absent = [lead for lead in LIMB_LEADS if lead not in recorded] if {"I", "II"} <= set(recorded) else []
    leads = dict(recorded)
    for lead in absent:
        leads[lead] = np.asarray(derive_limb_lead(lead, recorded))
    ordered = {lead: leads[lead] for lead in (*STANDARD_LEADS, *leads) if lead in leads}
    return ordered, [f"lead_derived:{'+'.join(absent)}"] if absent else []


def _median_beat(parsed: Any, rate: float, names: tuple[str, ...], off: list[str]) -> np.ndarray | None:
    """(leads, samples) in millivolt; None unless the file has one with a unit and the same leads and rate."""
    beats = [beat for beat in parsed.median_beats if beat.resolution_unit and beat.sampling_rate == rate]
    if not beats or len({len(beat.samples) for beat in beats}) > 1:
        return None
    try:
        labels = canonical_leads([beat.label for beat in beats])
        signals = [beat.to_physical().convert_units("mV").samples for beat in beats]
    except ValueError:
        return None
    signal_mv, _ = without_codes(np.stack(signals), rate)
    signal_mv[[label in off for label in labels]] = np.nan
    leads, _ = _with_limb_leads(dict(zip(labels, signal_mv, strict=True)))
    return np.stack([leads[name] for name in names]) if set(leads) == set(names) else None


def _subject(parsed: Any) -> dict[str, Any]:
    """Age, sex, patient and report as fields of `EcgRecord`; None if the file does not state them."""
    age = _age(parsed)
    statements = (" ".join(part.strip() for part in pair if part.strip()) for pair in parsed.interpretation.statements)
    return {
        "age": age if age is not None and 0 <= age <= MAX_AGE_YEARS else None,
        "sex": _SEXES.get(parsed.patient.sex),
        "patient_id": parsed.patient.patient_id.strip() or None,
        "report": "; ".join(statements) or None,
    }


def _age(parsed: Any) -> float | None:
    """Years, as stated or from birth to the recording."""
    if parsed.patient.age is not None:
        return float(parsed.patient.age)
    recorded = parsed.recording.date.date() if parsed.recording.date else None
    if recorded is None:
        try:  # a date without a time is kept here
            recorded = date.fromisoformat(str(parsed.raw_metadata.get("acquisition_date")))
        except ValueError:
            return None
    born = parsed.patient.birth_date
    return None if born is None else float((recorded - born.date()).days // 365.2425)


def _is(kind: str, head: bytes) -> bool:
    return _kind(head) == kind


VENDOR_FORMATS = tuple(Format(kind, partial(_is, kind), partial(_read, kind)) for kind in _READERS)
