"""Prepares a DICOM waveform for ECGDataKit, which reads the first of several groups, and only files with a preamble.

Groups of channels that were recorded at once become one group, the longest goes first, a preamble is added, and a
padding value of 0 is removed, as it would make true zeros missing. PS3.3 C.10.9.
"""

import warnings
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from ecgdan_hf.data.readers.prepared_copy import parse_copy

_BEATS = ("MEDIAN", "REPRESENTATIVE", "AVERAGE")
_ALIKE = ("SamplingFrequency", "NumberOfWaveformSamples", "WaveformBitsAllocated", "WaveformSampleInterpretation")


def parse_dicom(path: Path, parse: Callable[[Path], Any]) -> Any:
    """Returns what `parse` makes of a file, or of a prepared copy of it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # `parse` makes flags of them
        content = _prepared(path)
    return parse(path) if content is None else parse_copy(path, content, parse)


def _prepared(path: Path) -> bytes | None:
    """The content to parse instead of that of the file; None if the file is fine, or damaged: the parser says how."""
    from pydicom import dcmread
    from pydicom.uid import ImplicitVRLittleEndian

    try:
        dataset = dcmread(path, force=True)
        is_implicit = bool(dataset.original_encoding[0])
        if not _prepare(dataset):
            return None
        if is_implicit:
            dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
        content = BytesIO()
        dataset.save_as(content, enforce_file_format=True)
        return content.getvalue()
    except Exception:
        return None


def _prepare(dataset: Any) -> bool:
    """Changes a dataset as said above; whether there was anything to change."""
    groups = list(dataset.WaveformSequence)
    padded = [group for group in groups if not any(group.get("WaveformPaddingValue") or b"\1")]
    for group in padded:
        del group.WaveformPaddingValue
    joined = _joined(groups)
    ordered = sorted(joined, key=lambda group: -float(group.NumberOfWaveformSamples) / float(group.SamplingFrequency))
    rhythms = [group for group in joined if not _is_beat(group)]
    reordered = bool(rhythms) and rhythms[0] is not next(group for group in ordered if not _is_beat(group))
    if reordered or len(joined) < len(groups):
        dataset.WaveformSequence = ordered if reordered else joined
    return _with_preamble(dataset) or bool(padded) or reordered or len(joined) < len(groups)


def _is_beat(group: Any) -> bool:
    return any(word in str(group.get("MultiplexGroupLabel", "")).upper() for word in _BEATS)


def _joined(groups: list[Any]) -> list[Any]:
    """Joins groups of other channels, recorded at the same time, with the first such group."""
    kept: list[Any] = []
    for group in groups:
        first = next((each for each in kept if _belong_together(each, group)), None)
        if first is None:
            kept.append(group)
            continue
        count = int(first.NumberOfWaveformSamples)
        both = [
            np.frombuffer(bytes(each.WaveformData), np.uint8).reshape(count, int(each.NumberOfWaveformChannels), -1)
            for each in (first, group)
        ]
        first.WaveformData = np.concatenate(both, axis=1).tobytes()
        first.NumberOfWaveformChannels = sum(len(channels[0]) for channels in both)
        first.ChannelDefinitionSequence = [*first.ChannelDefinitionSequence, *group.ChannelDefinitionSequence]
    return kept


def _belong_together(first: Any, second: Any) -> bool:
    offsets = [float(group.get("MultiplexGroupTimeOffset") or 0) for group in (first, second)]
    alike = all(first.get(name) == second.get(name) for name in _ALIKE)
    names = [{_name(channel) for channel in group.ChannelDefinitionSequence} for group in (first, second)]
    apart = not names[0] & names[1] and "" not in names[0] | names[1]
    return alike and apart and offsets[0] == offsets[1] and _is_beat(first) == _is_beat(second)


def _name(channel: Any) -> str:
    source = (channel.get("ChannelSourceSequence") or [{}])[0]
    return str(source.get("CodeValue") or source.get("CodeMeaning") or channel.get("ChannelLabel") or "")


def _with_preamble(dataset: Any) -> bool:
    """Adds what a file without preamble lacks; whether it did."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    if getattr(dataset, "preamble", None) and dataset.file_meta.get("TransferSyntaxUID"):
        return False
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.get("SOPClassUID", "1.2.840.10008.5.1.4.1.1.9.1.1")
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.get("SOPInstanceUID", "2.25.1")
    return True
