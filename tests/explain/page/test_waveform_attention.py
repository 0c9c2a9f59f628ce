"""What is measured of DANet's attention, against arrays whose answer is known, and the page that shows it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import wfdb
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from typer.testing import CliRunner
from waveform_attention import (
    attention_peaks,
    beat_localisation,
    enrichment_interval,
    localisation_table,
    mass_in_intervals,
)

from ecgdan_hf import DanetConfig, DanetForPreTraining, DanetForSequenceClassification, EcgDanFeatureExtractor
from ecgdan_hf.cli.main import app
from ecgdan_hf.data.record import EcgRecord
from ecgdan_hf.explain.page.figures import explain_page
from ecgdan_hf.explain.page.waveform_figure import BLUE, ORANGE, _attended_strip, read_beats, waveform_page

RATE = 100
LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
BEATS = np.array([1.0, 2.0, 3.0, 4.0, 4.7, 6.0, 7.0, 8.0, 9.0])
EARLY = 4.7


def bumps(*seconds: float, height: float = 1.0, width: float = 0.05, length: int = 1000) -> np.ndarray:
    """(samples,): 0.1 with a bump at each time."""
    time = np.arange(length) / RATE
    return 0.1 + sum((height - 0.1) * np.exp(-0.5 * ((time - each) / width) ** 2) for each in seconds)


# Mass in intervals


def test_even_attention_has_as_much_mass_in_intervals_as_they_take_time_whatever_their_number():
    for intervals in ([[1.0, 1.5]], [[0.0, 0.2], [3.0, 5.0], [4.0, 6.0]], [[9.5, 20.0]], []):
        mass, time = mass_in_intervals(np.full(1000, 0.3), intervals, RATE)
        assert mass == pytest.approx(time)
    assert mass_in_intervals(np.ones(1000), [[0.0, 0.2], [0.1, 0.3]], RATE)[1] == pytest.approx(0.031)


def test_attention_inside_the_intervals_alone_has_all_its_mass_there_and_elsewhere_none():
    weights = np.zeros(1000)
    weights[200:300] = 0.5
    assert mass_in_intervals(weights, [[2.0, 2.99]], RATE) == (1.0, 0.1)
    assert mass_in_intervals(weights, [[3.0, 4.0]], RATE)[0] == 0.0
    assert np.isnan(mass_in_intervals(np.zeros(10), [[0, 1]], RATE)[0])


def test_enrichment_is_the_ratio_of_the_shares_and_resamples_patients():
    interval = enrichment_interval([0.2, 0.4, 0.3], [0.1, 0.2, 0.15], n=50)
    assert interval.estimate == pytest.approx(2.0) == interval.low == interval.high
    apart = enrichment_interval([0.1, 0.1, 0.4, 0.4], [0.1] * 4, patient_ids=["a", "a", "b", "b"], n=200)
    assert apart.estimate == pytest.approx(2.5) and (apart.low, apart.high) == pytest.approx((1.0, 4.0))


@pytest.mark.parametrize("weights", [np.zeros((2, 5)), np.array([0.1, -0.2]), np.array([0.1, np.nan]), []])
def test_weights_that_are_no_attention_are_refused(weights: Any):
    with pytest.raises(ValueError, match=r"weights: expected \(samples,\), none of them negative or NaN"):
        mass_in_intervals(weights, [[0, 1]], RATE)
    with pytest.raises(ValueError, match="weights: expected"):
        beat_localisation(weights, [1.0], RATE)


# Peaks and beats


def test_attention_peaks_are_local_maxima_half_way_up_and_a_plateau_counts_once():
    weights = bumps(2.0) + bumps(5.0, height=0.5) - 0.1
    weights[700:721] = 0.8  # a plateau
    weights[:3] = 0.9  # and one at the end
    assert attention_peaks(weights).tolist() == [1, 200, 710]
    assert attention_peaks(bumps(2.0) + bumps(5.0, height=0.65) - 0.1).tolist() == [200, 500]
    assert len(attention_peaks(np.full(500, 0.7))) == 0


def test_attention_on_the_beat_finds_it_and_the_same_attention_shifted_seldom_does():
    found = beat_localisation(bumps(EARLY), [EARLY], RATE)
    assert found["highest_on_beat"] == found["beats_found"] == 1.0 and found["num_peaks"] == 1
    assert found["highest_on_beat_chance"] <= 0.2 and found["beats_found_chance"] <= 0.2
    assert found == beat_localisation(bumps(EARLY), [EARLY], RATE)


@pytest.mark.parametrize(("apart", "expected"), [(-0.15, 1.0), (0.15, 1.0), (-0.17, 0.0), (0.17, 0.0)])
def test_tolerance_reaches_150_ms_to_either_side(apart: float, expected: float):
    found = beat_localisation(bumps(EARLY + apart), [EARLY], RATE)
    assert found["highest_on_beat"] == found["beats_found"] == expected


def test_the_highest_peak_may_lie_elsewhere_while_the_beats_are_found():
    weights = np.maximum(bumps(2.0), bumps(EARLY, 7.0, height=0.8))
    found = beat_localisation(weights, [EARLY, 9.0], RATE)
    assert found["highest_on_beat"] == 0.0 and found["beats_found"] == 0.5 and found["num_peaks"] == 3


def test_attention_that_peaks_at_every_beat_finds_all_and_its_highest_no_more_than_chance():
    rng = np.random.default_rng(0)
    heights = [np.maximum.reduce([bumps(each, height=rng.uniform(0.8, 1)) for each in BEATS]) for _ in range(60)]
    table = localisation_table(heights, [[EARLY]] * 60, RATE, n=100)
    assert table["beats_found"].estimate == 1.0
    assert table["highest_on_beat"].estimate < 0.3


def test_chance_is_the_same_attention_shifted_round_in_time():
    """The highest peak and three lower ones are near a beat more often than it alone; two beats lie at the ends."""
    weights, beats, tolerance = np.zeros(100), np.array([1, 45, 98]), 4
    weights[[10, 30, 50, 70]] = 1.0, 0.9, 0.8, 0.7
    found = beat_localisation(weights, beats / RATE, RATE, tolerance / RATE)
    moved = [np.roll(weights, shift) for shift in np.random.default_rng(0).integers(0, 100, 20)]
    near = [[each[max(0, beat - tolerance) : beat + tolerance + 1].max() for beat in beats] for each in moved]
    highest, share = np.mean(np.max(near, axis=1) == 1), np.mean(np.array(near) > 0)
    assert 0 < highest < share < 1
    assert found["highest_on_beat_chance"] == highest and found["beats_found_chance"] == pytest.approx(share)


def test_flat_attention_finds_nothing():
    found = beat_localisation(np.ones(1000), BEATS, RATE)
    assert set(found.values()) == {0.0}


def test_a_table_weighs_segments_by_their_beats_and_resamples_patients():
    weights, beats = [bumps(2.0), bumps(2.0)], [[2.0], [5.0, 6.0, 7.0]]
    table = localisation_table(weights, beats, RATE, ["a", "b"], n=100)
    assert table["beats_found"].estimate == pytest.approx(0.25)
    assert table["highest_on_beat"].estimate == pytest.approx(0.5)
    assert table["beats_found"].num_patients == 2 and (table["beats_found"].low, table["beats_found"].high) == (0, 1)


def test_no_beat_or_no_segment_is_refused():
    with pytest.raises(ValueError, match="beat_seconds: expected at least one beat, got none"):
        beat_localisation(bumps(1.0), [], RATE)
    with pytest.raises(ValueError, match="weights: expected at least one segment, got none"):
        localisation_table([], [], RATE)


# The page


def model(module: str = "hard", **options: Any) -> tuple[DanetForSequenceClassification, EcgDanFeatureExtractor]:
    torch.manual_seed(0)
    labels = {"id2label": {0: "APC"}, "label2id": {"APC": 0}, "thresholds": {"APC": 0.4}}
    small = {"hidden_size": 16, "classifier_hidden_size": 8, "waveform_channels": [4, 6], "waveform_kernel": 3}
    config = DanetConfig(waveform_module=module, classifier_network="resnet1d", **small | labels | options)
    danet = DanetForSequenceClassification(config).eval()
    if danet.waveform_module is not None:
        torch.nn.init.normal_(danet.waveform_module.attention_head.weight, std=5.0)
    return danet, EcgDanFeatureExtractor(**config.signal_contract)


def record(leads: tuple[str, ...] = ("II", "V1"), seconds: float = 10.0, rate: int = 250) -> EcgRecord:
    """Gaussian P, QRS and T at `BEATS`, less in each further lead."""
    time = np.arange(round(seconds * rate)) / rate
    waves = ((-0.16, 0.025, 0.15), (0.0, 0.012, 1.2), (0.03, 0.01, -0.3), (0.28, 0.045, 0.3))
    lead = sum(h * np.exp(-0.5 * ((time - beat - at) / w) ** 2) for beat in BEATS for at, w, h in waves)
    signal = np.stack([lead / (1 + index) for index in range(len(leads))])
    return EcgRecord(signal, rate, leads, record_id="209")


def texts(figure: Figure) -> list[Text]:
    figure.draw_without_rendering()
    return [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]


def said(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in texts(figure))


MARKED = [(float(at), "A" if at == EARLY else "N") for at in BEATS]
PAGES = {
    "two leads, hard": lambda: waveform_page(record(), *model(), MARKED),
    "two leads, soft": lambda: waveform_page(record(), *model("soft"), MARKED, "a checkpoint"),
    "one lead": lambda: waveform_page(record(("II",)), *model(), MARKED),
    "twelve leads": lambda: waveform_page(record(LEADS), *model()),
    "short": lambda: waveform_page(record(seconds=5.5), *model(), MARKED),
    "long": lambda: waveform_page(record(seconds=14.0), *model(), MARKED),
}


@pytest.mark.parametrize("name", PAGES)
def test_every_text_keeps_to_the_page_and_the_header_to_itself(name: str):
    figure = PAGES[name]()
    renderer = figure.canvas.get_renderer()
    for text in texts(figure):
        box = text.get_window_extent(renderer)
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1, text
    boxes = [text.get_window_extent(renderer) for text in figure.texts]
    for index, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[index + 1 :]), figure.texts[index]


def test_the_page_says_label_score_threshold_leads_time_module_and_that_it_is_for_research():
    danet, fe = model("soft", lead_names=["II", "V1"])
    page = said(waveform_page(record(), danet, fe, MARKED, "danet-apc", begin_seconds=140.0))
    score = danet(**fe(**record().as_inputs(), return_tensors="pt")).logits.sigmoid().item()
    for part in (f"APC {score:.2f} (threshold 0.40)", "leads II, V1", "140 to 150 s", "(soft): danet-apc"):
        assert part in page
    assert "Research use only" in page and "(1+a) · x" in page and "rule: apc" in page


def test_a_threshold_is_not_shown_where_it_does_not_hold():
    assert "threshold" not in said(waveform_page(record(), *model()))  # two of twelve leads


@pytest.mark.parametrize("module", ["hard", "soft"])
def test_the_strip_is_what_the_network_sees_and_its_time_is_the_recording_s(module: str):
    danet, fe = model(module)
    for seconds, begin in ((10.0, 0.0), (14.0, 2.0), (6.0, 0.0)):
        ecg = record(seconds=seconds)
        strip = _attended_strip(ecg, danet, fe, begin_seconds=100.0)
        factor = strip.weights if module == "hard" else 1 + strip.weights
        np.testing.assert_allclose(strip.amended_mv, factor * strip.signal_mv)
        assert strip.lead_names == ["II", "V1"] and strip.begin_seconds == 100.0 + begin
        assert len(strip.weights) == min(seconds, 10) * RATE == strip.signal_mv.shape[1]
        r_peak = strip.seconds[strip.signal_mv[0, : 2 * RATE].argmax()] - 100
        assert np.abs(BEATS - r_peak).min() < 0.02
        assert strip.intervals or module == "soft"  # of random weights, whose attention may be flat
        for each in strip.intervals:
            assert strip.weights[np.abs(strip.seconds - each["peak"]).argmin()] == each["weight"]
            assert strip.begin_seconds <= each["start"] < each["end"] <= strip.seconds[-1] + 1 / RATE


def test_marked_beats_stand_above_their_r_peaks_and_ectopic_ones_are_orange():
    figure = waveform_page(record(), *model(), [*MARKED, (12.0, "V")])
    paper = figure.axes[0]
    marks = {text.get_text(): text for text in paper.texts if text.get_text() in "ANV"}
    assert set(marks) == {"N", "A"}  # the V lies behind the strip
    assert to_hex(marks["A"].get_color()) == ORANGE and to_hex(marks["N"].get_color()) != ORANGE
    trace = next(line for line in paper.lines if len(line.get_xdata()) == 1000 and line.get_color() != BLUE)
    near = np.abs(trace.get_xdata() - marks["A"].get_position()[0]) < 3
    assert trace.get_ydata()[near].max() == pytest.approx(np.max(trace.get_ydata()), rel=0.02)


def test_attention_is_drawn_from_0_to_1_under_its_own_time():
    danet, fe = model()
    figure = waveform_page(record(), danet, fe, begin_seconds=20.0)
    paper, band = figure.axes
    strip = _attended_strip(record(), danet, fe, begin_seconds=20.0)
    np.testing.assert_allclose(band.lines[0].get_ydata(), strip.weights)
    assert band.get_ylim()[0] == 0 and 1 <= band.get_ylim()[1] < 1.1 and band.get_xlim() == (20.0, 30.0)
    figure.draw_without_rendering()
    for trace in (line for line in paper.lines if len(line.get_xdata()) == 1000):
        for index in (0, 500, 999):
            above = paper.transData.transform((trace.get_xdata()[index], 0))[0]
            below = band.transData.transform((strip.seconds[index], 0))[0]
            assert above == pytest.approx(below, abs=0.5)


def test_models_without_waveform_attention_are_refused_by_this_page_and_drawn_by_the_other():
    danet, fe = model("none")
    with pytest.raises(
        ValueError, match=r"model: expected a waveform module, hard or soft, .* got waveform_module='none'"
    ):
        waveform_page(record(), danet, fe)
    assert "APC" in said(explain_page(record(), danet, fe))
    pretrained = DanetForPreTraining(DanetConfig(waveform_channels=[4, 6])).eval()
    with pytest.raises(ValueError, match="model: expected a DanetForSequenceClassification, got DanetForPreTraining"):
        waveform_page(record(), pretrained, fe)


@pytest.fixture
def marked_record(tmp_path: Path) -> Path:
    ecg = record()
    rows = np.asarray(ecg.signal_mv, dtype=float).T
    wfdb.wrsamp("209", 250, ["mV"] * 2, ["MLII", "V1"], rows, fmt=["16"] * 2, write_dir=str(tmp_path))
    samples = np.array([10, *np.rint(BEATS * 250).astype(int)])
    wfdb.wrann("209", "atr", samples, ["+", *(symbol for _, symbol in MARKED)], write_dir=str(tmp_path))
    return tmp_path / "209"


def test_beats_are_read_beside_the_record_however_it_is_named_and_other_marks_are_left_out(marked_record: Path):
    for suffix in ("", ".hea", ".dat"):
        beats = read_beats(marked_record.with_name("209" + suffix))
        assert [symbol for _, symbol in beats] == [symbol for _, symbol in MARKED]
        np.testing.assert_allclose([seconds for seconds, _ in beats], BEATS, atol=0.003)
    marked_record.with_suffix(".atr").write_bytes(b"\x01")
    with pytest.raises(ValueError, match=r"209\.atr: damaged annotations") as caught:
        read_beats(marked_record)
    assert "\n" not in str(caught.value)
    marked_record.with_suffix(".atr").unlink()
    assert read_beats(marked_record) is None and read_beats("nowhere.csv") is None


def test_the_command_draws_a_danet_checkpoint_s_page_of_a_part_of_a_recording(marked_record: Path, tmp_path: Path):
    danet, fe = model()
    for part in (danet, fe):
        part.save_pretrained(tmp_path / "danet")
    out = tmp_path / "page.png"
    options = ["--start-seconds", "3", "--seconds", "5", "--checkpoint", str(tmp_path / "danet"), "--out", str(out)]
    result = CliRunner().invoke(app, ["explain", str(marked_record), *options])
    assert result.exit_code == 0, result.output
    colours = np.asarray(Image.open(out).convert("RGB")).reshape(-1, 3)
    wanted = np.array([int(ORANGE[i : i + 2], 16) for i in (1, 3, 5)])
    assert (np.abs(colours.astype(int) - wanted).sum(axis=1) < 12).sum() > 50  # the A is there
    assert not list(tmp_path.glob("*partial*"))
