"""ECGs printed into a PDF as lines: the points of the lines are the samples.

`pdf_content` runs the drawing in a child process, `pdf_scale` finds millivolt and seconds, `pdf_leads` names the lines
and places them in time. What was not printed is NaN. A page that is a picture has no lines and is refused, as is every
page whose grid, pulse, words, names and leads contradict each other.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecgdan_hf.data.readers.child import decode
from ecgdan_hf.data.readers.declared import Declared, Format
from ecgdan_hf.data.readers.pdf_leads import MIN_POINTS, Name, Piece, find_names, find_traces, named, pieces_in_time
from ecgdan_hf.data.readers.pdf_scale import Words, find_pulse, find_scale
from ecgdan_hf.data.record import EcgRecord
from ecgdan_hf.model.contract_ecgdan import STANDARD_LEADS

FloatArray = NDArray[np.float64]

DIGITISERS = (
    "digitise it with a tool for that, such as Open-ECG-Digitizer (github.com/Ahus-AIM/Open-ECG-Digitizer) or "
    "ECG-Digitiser (github.com/felixkrones/ECG-Digitiser), and check what it gives"
)
OTHER_PAGES = "pages_left_out"
_SECONDS = 15  # of the processor; 300,000 points in segments of two take 5
_PICTURE_SHARE = 0.2  # of a page
_SAME_SCALE = 0.01


def read_pdf(path: Path, declared: Declared) -> EcgRecord:
    """Reads the first page of a PDF that holds an ECG as lines.

    Raises:
        ValueError: damaged or encrypted, no ECG or one that is a picture, or contradictions on the page.
    """
    points, said = decode("ecgdan_hf.data.readers.pdf_content:drawing", path, seconds=_SECONDS)
    pages = [_Page.of(points, said, number) for number in range(said["pages"])]
    drawn = [page for page in pages if page.names and page.has_traces]
    if not drawn:
        raise ValueError(f"{path}: {_why_none(pages, said)}")
    pieces, rate, flags = drawn[0].leads(str(path))
    signal, leads = _joined(pieces)
    declared.rate(rate, path)
    declared.check_unit({"mV"}, path)
    declared.leads(leads, path)
    flags += (f"{OTHER_PAGES}:{len(drawn) - 1}",) if len(drawn) > 1 else ()
    return EcgRecord(signal, rate, tuple(leads), record_id=path.stem, source=str(path), flags=flags)


class _Page:
    """Lines and words of one page, turned upright."""

    def __init__(self, lines: list[FloatArray], scales: list[list[float]], texts: list[dict[str, Any]]) -> None:
        self.lines, self.scales, self.texts = lines, scales, texts
        self.names: list[Name] = find_names(texts)

    @classmethod
    def of(cls, points: FloatArray, said: dict[str, Any], number: int) -> "_Page":
        """Page `number` of a drawing; the words say which way is up."""
        texts = [text for text in said["texts"] if text["page"] == number and not text["mirrored"]]
        texts = _joined_texts(texts)
        names = [text for text in texts if find_names([text])]
        angles = [round(text["angle"], 1) % 360 for text in names]
        angle = max(set(angles), key=angles.count, default=0.0)
        turn = _rotation(-angle)
        lines, scales = [], []
        for stroke in said["strokes"]:
            if stroke["page"] == number:
                line = points[stroke["start"] : stroke["stop"]] @ turn
                corners = np.array(stroke["clip"]).reshape(2, 2)
                corners = np.array(
                    [corners[0], corners[1], (corners[0, 0], corners[1, 1]), (corners[1, 0], corners[0, 1])]
                )
                line = _clipped(line, corners @ turn)
                if len(line) > 1 and not (stroke["filled"] and len(line) > 5):
                    lines.append(line)
                    scales.append(stroke["scale"])
        for text in texts:
            text["x"], text["y"] = np.array([text["x"], text["y"]]) @ turn
        upright = [text for text in texts if abs((text["angle"] - angle + 180) % 360 - 180) < 1]
        return cls(lines, scales, upright)

    @property
    def has_traces(self) -> bool:
        """Whether some line is long enough for a lead."""
        return any(len(line) >= MIN_POINTS for line in self.lines)

    def leads(self, source: str) -> tuple[list[Piece], float, tuple[str, ...]]:
        """Pieces of the leads, sampling rate, and flags; ValueError for contradictions."""
        words = Words.of([text["text"] for text in self.texts], source)
        long = [line for line in self.lines if len(line) >= MIN_POINTS]
        ahead = [line if line[-1, 0] >= line[0, 0] else line[::-1] for line in self.lines if len(line) > 3]
        pulses = [pulse for pulse in map(find_pulse, ahead) if pulse is not None]
        scale = find_scale(words, [line for line in self.lines if len(line) <= 5], pulses, source)
        traces, _ = find_traces(long, scale, source)
        if not traces:
            raise ValueError(f"{source}: expected traces of at least 1.5 s, got none")
        self._check_alike(source)
        traces, unnamed = named(traces, self.names, scale, source)
        pieces, rate, flags = pieces_in_time(traces, scale, source)
        return pieces, rate, (*scale.flags, *unnamed, *flags)

    def _check_alike(self, source: str) -> None:
        """Traces of one page are drawn at one scale; a damaged matrix would change the gain of one."""
        scales = np.array([s for s, line in zip(self.scales, self.lines, strict=True) if len(line) >= MIN_POINTS])
        if np.abs(scales / np.median(scales, axis=0) - 1).max() > _SAME_SCALE:
            raise ValueError(f"{source}: expected traces drawn at one scale, got several: damaged, or not one ECG")


def _rotation(degrees: float) -> FloatArray:
    """Acts on rows (x, y)."""
    angle = np.radians(degrees)
    return np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])


def _clipped(line: FloatArray, corners: FloatArray) -> FloatArray:
    """The part of a line between the left and right ends of its clip path."""
    low, high = corners[:, 0].min() - 1e-6, corners[:, 0].max() + 1e-6
    inside = (line[:, 0] >= low) & (line[:, 0] <= high)
    return line if inside.all() else line[inside]


def _joined_texts(texts: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Words that are written letter by letter, or word by word, as one."""
    found: list[dict[str, Any]] = []
    for text in texts:
        if found and (gap := _gap(found[-1], text)) is not None:
            last = found[-1]
            last["text"] += (" " if gap > 0.15 else "") + text["text"]
            last["width"] += gap * last["size"] + text["width"]
        else:
            found.append(dict(text))
    return found


def _gap(left: dict[str, Any], right: dict[str, Any]) -> float | None:
    """Distance by size from the end of a word to the next that continues it; None if it does not."""
    if abs(left["angle"] - right["angle"]) > 0.5 or not left["size"]:
        return None
    along = np.array([right["x"] - left["x"], right["y"] - left["y"]]) @ _rotation(-left["angle"]) / left["size"]
    gap = float(along[0] - left["width"] / left["size"])
    return gap if abs(along[1]) < 0.35 and -0.3 < gap < 0.6 else None


def _joined(pieces: Sequence[Piece]) -> tuple[NDArray[np.float32], list[str]]:
    """(leads, samples) mV and the leads in the standard order; a strip covers the piece of its lead."""
    leads = [lead for lead in STANDARD_LEADS if any(piece.lead == lead for piece in pieces)]
    signal = np.full((len(leads), max(piece.start + len(piece.values_mv) for piece in pieces)), np.nan, np.float32)
    for piece in sorted(pieces, key=lambda piece: len(piece.values_mv)):
        signal[leads.index(piece.lead), piece.start : piece.start + len(piece.values_mv)] = piece.values_mv
    return signal, leads


def _why_none(pages: Sequence[_Page], said: dict[str, Any]) -> str:
    if any(image["area"] > _PICTURE_SHARE for image in said["images"]):
        return f"expected an ECG drawn as lines, got a picture of one (a scan, photo or fax); {DIGITISERS}"
    if not any(page.has_traces for page in pages):
        return "expected an ECG drawn as lines, got a PDF without long lines"
    return "expected names of leads beside the traces, got none that can be read; export XML, DICOM or SCP-ECG"


PDF = Format("pdf", lambda head: b"%PDF-" in head[:1024], lambda path, declared, _: read_pdf(path, declared))
