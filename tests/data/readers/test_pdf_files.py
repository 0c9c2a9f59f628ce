"""PDFs with the ECG as lines: every layout and style of `fixtures/write_pdfs.py` read right, all else refused."""

import re
import zlib
from dataclasses import replace

import numpy as np
import pytest
from fixtures.write_pdfs import LAYOUTS, LEADS, STYLES, printed, write_pdf
from pypdf import PdfWriter
from pypdf.generic import NameObject, StreamObject
from reportlab.pdfgen.canvas import Canvas

from ecgdan_hf.data import formats
from ecgdan_hf.data.readers.pdf_leads import Name, Trace, _Columns, _has_spike
from ecgdan_hf.data.readers.pdf_scale import Pulse, Words, find_pulse, find_scale, grid_spacing
from ecgdan_hf.data.sources.ecg_folder import ecg_files, left_out_files

RATE = 100


@pytest.fixture(scope="module")
def slow_ecg(ecg):
    """(12, 800) mV at 100 Hz: quick to draw."""
    return ecg[:, :4000:5]


def difference_mv(record, signal_mv, layout):
    """Largest root mean square over leads, around the median; all that was printed must be there, and no more."""
    shown = printed(signal_mv, RATE, layout)
    assert record.lead_names == LEADS
    assert abs(record.signal_mv.shape[1] - shown.shape[1]) <= 2
    differences = []
    for values, expected in zip(record.signal_mv, shown, strict=True):
        length = min(len(values), len(expected))
        both = np.isfinite(values[:length]) & np.isfinite(expected[:length])
        assert (np.isfinite(expected[:length]) ^ both).sum() <= 2
        assert (np.isfinite(values[:length]) ^ both).sum() <= 2
        off = values[:length][both] - expected[:length][both]
        differences.append(np.sqrt(np.mean((off - np.median(off)) ** 2)))
    return max(differences)


def drawn(path, signal_mv, layout="3x4+1", style="plain", rate=RATE, **changes):
    return write_pdf(path / "ecg.pdf", signal_mv, rate, layout, replace(STYLES[style], **changes))


@pytest.mark.parametrize("style", ["muse", "philips", "schiller", "rows", "all", "curves", "slow", "matplotlib"])
def test_samples_come_back_whatever_the_program_that_drew_them(tmp_path, slow_ecg, style):
    record = formats.read(drawn(tmp_path, slow_ecg, style=style))
    assert record.sampling_rate == RATE
    assert difference_mv(record, slow_ecg, "3x4+1") < 0.002


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_placed_in_time_with_the_rest_missing(tmp_path, slow_ecg, layout):
    record = formats.read(drawn(tmp_path, slow_ecg, layout))
    assert difference_mv(record, slow_ecg, layout) < 0.002
    assert record.flags == (("columns_taken_in_sequence",) if layout.startswith("6x2") else ())


def test_a_simplified_trace_is_read_as_far_as_it_goes_and_flagged(tmp_path, ecg):
    part = ecg[:, :1500]
    record = formats.read(drawn(tmp_path, part, "12x1", "matplotlib42", rate=500, pulse="none"))
    assert (record.sampling_rate, record.flags) == (500, ("no_calibration_pulse", "points_are_no_samples"))
    off = record.signal_mv[:, :1490] - part[:, :1490]
    assert np.sqrt(np.mean((off - np.median(off, axis=1, keepdims=True)) ** 2, axis=1)).max() < 0.015


def test_columns_of_the_same_time_are_told_by_the_limb_leads(tmp_path, slow_ecg):
    record = formats.read(drawn(tmp_path, np.tile(slow_ecg[:, :250], 4), "3x4"))  # every column shows the first 2.5 s
    assert record.duration_seconds == pytest.approx(2.5, abs=0.01)


def test_a_page_without_words_is_read_by_pulse_and_grid(tmp_path, slow_ecg):
    record = formats.read(drawn(tmp_path, slow_ecg, text="Hospital"))
    assert record.flags == ("scale_from_pulse",)
    assert difference_mv(record, slow_ecg, "3x4+1") < 0.002
    with pytest.raises(ValueError, match="expected words such as '25 mm/s 10 mm/mV', or a calibration pulse"):
        formats.read(drawn(tmp_path, slow_ecg, text="Hospital", pulse="none"))


def test_a_page_without_a_pulse_says_so_and_one_without_pulse_and_grid_is_refused(tmp_path, slow_ecg):
    assert formats.read(drawn(tmp_path, slow_ecg, pulse="none")).flags == ("no_calibration_pulse",)
    with pytest.raises(ValueError, match="show how large a millimetre of this page is"):
        formats.read(drawn(tmp_path, slow_ecg, pulse="none", grid="none"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text": "25 mm/s 20 mm/mV"}, "grid, pulse and words contradict each other"),
        ({"text": "26 mm/s 10 mm/mV"}, r"mm/s: expected one of 5, 10, .* got \[26.0\]"),
        ({"text": "25 mm/s 50 mm/s 10 mm/mV"}, "expected one value on a page"),
        ({"names": "none"}, "expected names of leads beside the traces"),
    ],
)
def test_a_page_that_contradicts_itself_is_refused(tmp_path, slow_ecg, changes, message):
    with pytest.raises(ValueError, match=message):
        formats.read(drawn(tmp_path, slow_ecg, **changes))


def test_leads_that_contradict_their_strip_or_each_other_are_refused(tmp_path, slow_ecg):
    path = drawn(tmp_path, slow_ecg, compress=False)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"(II) Tj", b"(V1) Tj", 1))
    with pytest.raises(ValueError, match="got V1 twice at different times"):
        formats.read(path)
    swapped = content.replace(b"(I) Tj", b"(X) Tj").replace(b"(aVF) Tj", b"(I) Tj").replace(b"(X) Tj", b"(aVF) Tj")
    path.write_bytes(swapped)
    with pytest.raises(ValueError, match=r"limb leads .* that contradict each other"):
        formats.read(path)


def test_leads_whose_traces_are_off_the_page_are_flagged_or_refused(tmp_path, slow_ecg):
    path = drawn(tmp_path, slow_ecg, compress=False)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"/MediaBox [ 0 0 841.8898", b"/MediaBox [ 0 0 595.0000"))
    assert path.read_bytes() != content
    assert formats.read(path).flags == ("trace_cut_short:V4+V5+V6",)
    path.write_bytes(content.replace(b"/MediaBox [ 0 0 841.8898", b"/MediaBox [ 0 0 480.0000"))
    with pytest.raises(ValueError, match="expected a trace for each name, got none for V4, V5, V6"):
        formats.read(path)


def test_a_changed_byte_of_a_drawing_is_noticed_by_its_checksum(tmp_path, slow_ecg):
    path = drawn(tmp_path, slow_ecg, style="matplotlib")
    content = bytearray(path.read_bytes())
    stream = max(re.finditer(rb"stream\n(.*?)endstream", bytes(content), re.DOTALL), key=lambda m: len(m.group(1)))
    content[stream.start(1) + 5_000] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="damaged PDF: a drawing cannot be inflated"):
        formats.read(path)


def test_a_changed_number_is_flagged_as_a_spike(tmp_path, ecg):
    path = drawn(tmp_path, ecg[:, :1000:2], "12x1", rate=250, compress=False)
    content = path.read_bytes()
    at = [found.start(1) for found in re.finditer(rb" \d{2,3}\.?\d* ([1-4])\d\d\.\d+ l", content)][-300]
    path.write_bytes(content[:at] + bytes([content[at] + 1]) + content[at + 1 :])
    assert any(flag.startswith("single_sample_spikes") for flag in formats.read(path).flags)


@pytest.mark.parametrize(
    ("values_mv", "is_spike"), [([0, 0, 0, 2, 0, 0, 0], True), ([0, 0.6, 1.2, 2, 1.2, 0.6, 0], False)]
)
def test_a_steep_r_wave_of_a_slow_recording_is_no_spike(values_mv, is_spike):
    assert _has_spike(np.arange(7) / 250, np.array(values_mv, dtype=float)) == is_spike


def test_pictures_and_other_pages_are_refused_with_what_to_do(tmp_path):
    from PIL import Image

    Image.fromarray(np.zeros((50, 70), np.uint8)).save(tmp_path / "scan.png")
    canvas = Canvas(str(tmp_path / "scan.pdf"), (700, 500))
    canvas.drawImage(str(tmp_path / "scan.png"), 0, 0, 700, 500)
    canvas.save()
    for name in ("scan.pdf", "scan.png"):
        with pytest.raises(ValueError, match=r"a picture .* such as Open-ECG-Digitizer \(github.com/Ahus-AIM"):
            formats.read(tmp_path / name)
    canvas = Canvas(str(tmp_path / "letter.pdf"))
    canvas.drawString(100, 100, "Dear colleague")
    canvas.save()
    with pytest.raises(ValueError, match="got a PDF without long lines"):
        formats.read(tmp_path / "letter.pdf")


def test_a_page_with_a_password_is_refused(tmp_path):
    canvas = Canvas(str(tmp_path / "secret.pdf"), encrypt="word")
    canvas.drawString(100, 100, "II")
    canvas.save()
    with pytest.raises(ValueError, match="expected a PDF without a password"):
        formats.read(tmp_path / "secret.pdf")


def test_a_drawing_larger_than_allowed_is_refused(tmp_path):
    stream, writer = StreamObject(), PdfWriter()
    stream._data = zlib.compress(b" " * (70 << 20), 1)
    stream[NameObject("/Filter")] = NameObject("/FlateDecode")
    page = writer.add_blank_page(9, 9)
    page[NameObject("/Contents")] = writer._add_object(stream)
    writer.write(tmp_path / "bomb.pdf")
    with pytest.raises(ValueError, match="expected a whole drawing below 64 MiB"):
        formats.read(tmp_path / "bomb.pdf")


def test_words_may_give_limb_and_chest_leads_a_gain_each():
    words = Words.of(["Speed: 25 mm/sec  Limb: 10 mm/mV  Chest: 5 mm/mV"], "a.pdf")
    assert words == Words(25.0, 10.0, 5.0)


def test_the_grid_says_how_large_a_millimetre_is():
    lines = [np.array([(x, 0.0), (x, 300.0)]) for x in np.arange(40) * 2.7]
    assert grid_spacing(lines, 0) == pytest.approx(2.7)
    assert grid_spacing(lines, 1) is None
    both = lines + [line[:, ::-1] for line in lines]
    pulse = Pulse(5, 27.0, 13.5)
    assert find_scale(Words(25.0, 10.0, 10.0), both, [pulse], "a.pdf").points_per_mv("V1") == pytest.approx(27.0)


def test_a_pulse_is_flat_then_up_then_flat_then_down():
    pulse = np.array([(0, 0), (2, 0), (2, 28.3), (16, 28.3), (16, 0), (20, 0)], dtype=float)
    assert find_pulse(pulse) == Pulse(4, pytest.approx(28.3), pytest.approx(14.0))
    assert find_pulse(pulse * [1, -1]) is None
    assert find_pulse(pulse * [10, 1]) is None


def test_a_trace_that_lost_its_first_samples_moves_no_other():
    lefts = {"I": (0, 100), "II": (8, 92), "V1": (100, 100), "V2": (100, 100)}
    traces = [
        Trace(np.array([[left, 0.0], [left + length, 0.0]]), Name(lead, left, 0.0, 1))
        for lead, (left, length) in lefts.items()
    ]
    columns = _Columns(traces, [np.zeros(length) for _, length in lefts.values()], points_per_sample=1.0)
    assert {piece.lead: piece.start for piece in columns.pieces()} == {"I": 0, "II": 8, "V1": 100, "V2": 100}


def test_printouts_among_other_recordings_do_not_count(tmp_path, slow_ecg, write_record):
    printout = drawn(tmp_path, slow_ecg)
    assert ecg_files(tmp_path) == [printout]
    header = write_record("a").with_suffix(".hea")
    assert ecg_files(tmp_path) == [header]
    assert "a PDF among recordings in other formats" in left_out_files(tmp_path)[printout]


def test_the_benchmark_reads_its_pages_and_notices_their_damage(tmp_path, monkeypatch, ecg, write_record):
    import bench_pdf

    monkeypatch.setattr(bench_pdf, "pairs", lambda: iter([("12x1", "plain")]))
    wfdb_file = write_record("a", ecg[:, :1500])
    rows = bench_pdf.read_whole([wfdb_file], tmp_path)
    assert bench_pdf.summary(rows)["rms_within_goal"] == 1
    damaged = bench_pdf.read_damaged([wfdb_file], tmp_path, 1, seed=0)
    assert sum(damaged[name] for name in ("refused", "flagged", "right", "silent")) == 1
