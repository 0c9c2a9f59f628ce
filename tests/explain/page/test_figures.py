import itertools

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.text import Text

from ecgdan_hf.data.record import EcgRecord
from ecgdan_hf.data.simulate.synthetic import make_signal
from ecgdan_hf.explain.maps.attention import sample_attention
from ecgdan_hf.explain.page.figures import Explanation, explain_page
from ecgdan_hf.explain.page.paper import Layout, draw_ecg
from ecgdan_hf.model.configuration_ecgdan import STANDARD_LEADS, EcgDanConfig, EcgDanSurvivalConfig
from ecgdan_hf.model.feature_extraction_ecgdan import EcgDanFeatureExtractor
from ecgdan_hf.model.modeling_ecgdan import EcgDanForSequenceClassification, EcgDanForSurvival, EcgDanModel

SUPERCLASSES = ("NORM", "MI", "STTC", "CD", "HYP")


def record(leads: tuple[str, ...] = STANDARD_LEADS, **fields) -> EcgRecord:
    signal = make_signal(strain=0.0, qrs_duration_ms=95.0, heart_rate_bpm=70.0, seed=0)
    signal = signal if len(signal) == 12 else signal.T
    rows = [STANDARD_LEADS.index(lead) for lead in leads]
    return EcgRecord(signal[rows], 500, leads, record_id="00042", age=63, sex="male", **fields)


def extractor(config: EcgDanConfig) -> EcgDanFeatureExtractor:
    return EcgDanFeatureExtractor(**config.signal_contract)


def survival_model(last_year: float = 12.0, fit: bool = True, **config) -> EcgDanForSurvival:
    torch.manual_seed(0)
    model = EcgDanForSurvival(EcgDanSurvivalConfig(**config)).eval()
    if fit:
        time = torch.linspace(0.1, last_year, 200)
        model.fit_baseline(torch.zeros(200), (torch.arange(200) % 4 == 0).float(), time)
    return model


def classifier(labels: tuple[str, ...] = SUPERCLASSES, **config) -> EcgDanForSequenceClassification:
    torch.manual_seed(0)
    names = dict(enumerate(labels))
    config |= {"id2label": names, "label2id": {name: index for index, name in names.items()}}
    return EcgDanForSequenceClassification(EcgDanConfig(thresholds={labels[0]: 0.3}, **config)).eval()


def page(model, ecg: EcgRecord | None = None, **options) -> Figure:
    return explain_page(ecg or record(), model, extractor(model.config), **options)


def texts(figure: Figure) -> list[Text]:
    """Every text that is drawn."""
    figure.draw_without_rendering()
    return [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]


def said(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in texts(figure))


def light_classifier() -> EcgDanForSequenceClassification:
    return classifier(trunk="light", input_kind="rhythm", normalization="global")


FINDINGS = [
    f"{unit}, 1333 test records: deletion +0.143 over random, random weights rank correlation 0.42. It points at "
    "leads the output depends on, but a part of it is there with random weights too."
    for unit in ("Leads", "Time")
]
PAGES = {
    "risk, beat": lambda: page(survival_model(simulated_outcome=True)),
    "risk, rhythm": lambda: page(survival_model(input_kind="rhythm")),
    "labels, beat": lambda: page(classifier()),
    "71 labels, beat": lambda: page(classifier(tuple(f"A_LONG_LABEL_{i}" for i in range(71)))),
    "71 labels, rhythm": lambda: page(classifier(tuple(f"A_LONG_LABEL_{i}" for i in range(71)), input_kind="rhythm")),
    "no head": lambda: page(EcgDanModel(EcgDanConfig())),
    "short follow-up": lambda: page(survival_model(last_year=4)),
    "rollup, rhythm": lambda: page(survival_model(input_kind="rhythm"), method="rollup", findings=FINDINGS),
    "gradient, beat": lambda: page(classifier(), method="gradient", label="MI", findings=FINDINGS),
    "occlusion, rhythm": lambda: page(light_classifier(), method="occlusion", findings=FINDINGS),
    "two leads": lambda: page(survival_model(input_kind="rhythm"), record(("I", "V5"))),
}


@pytest.mark.parametrize("name", PAGES)
def test_no_text_overlaps_another_or_leaves_the_page(name):
    figure = PAGES[name]()
    renderer = figure.canvas.get_renderer()
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in texts(figure)]
    for text, box in boxes:
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1, text
    for (first, one), (second, other) in itertools.combinations(boxes, 2):
        overlap = min(one.x1, other.x1) - max(one.x0, other.x0), min(one.y1, other.y1) - max(one.y0, other.y0)
        assert min(overlap) <= 1.5, f"{first!r} overlaps {second!r}"


def test_the_page_says_what_it_is_and_what_it_is_not():
    words = said(page(survival_model(simulated_outcome=True), checkpoint="runs/survival"))
    for expected in (
        "ECG 00042",
        "63 years, male",
        "runs/survival",
        "log hazard",
        "Research use only",
        "Measured: rate",
        "Recording: nothing seems wrong",
    ):
        assert expected in words
    assert "simulated outcomes" in words and "381 samples = 762 ms" in words and "25 mm/s and 10 mm/mV" in words
    assert "simulated" not in said(page(survival_model()))


def test_the_risks_at_1_5_and_10_years_are_those_of_the_model():
    model, ecg = survival_model(), record()
    inputs = extractor(model.config)(**ecg.as_inputs(), return_tensors="pt")
    risks = 1 - model.predict_survival(**inputs, years=[1, 5, 10])[0]
    words = said(page(model, ecg))
    for year, risk in zip((1, 5, 10), risks.tolist(), strict=True):
        assert f"{year} y: {100 * risk:.1f} %" in words


def test_beyond_the_follow_up_no_risk_is_invented():
    words = said(page(survival_model(last_year=4)))
    assert words.count("beyond\nfollow-up") == 2 and "nan" not in words


def test_without_a_baseline_hazard_the_page_says_so():
    assert "no baseline hazard was fitted" in said(page(survival_model(fit=False)))


def test_labels_are_sorted_coloured_by_threshold_and_carry_their_probability():
    model = classifier()
    figure = page(model)
    labels = next(axes for axes in figure.axes if axes.get_title().startswith("Label probabilities"))
    output = model(**extractor(model.config)(**record().as_inputs(), return_tensors="pt"))
    expected = output.logits[0].sigmoid().detach().numpy()
    widths = [bar.get_width() for bar in labels.patches]
    np.testing.assert_allclose(widths, np.sort(expected)[::-1], rtol=1e-4)
    names = [tick.get_text() for tick in labels.get_yticklabels()]
    assert names == [SUPERCLASSES[index] for index in np.argsort(-expected)]
    for name, bar in zip(names, labels.patches, strict=True):
        above = bar.get_width() >= (0.3 if name == "NORM" else 0.5)
        assert (bar.get_facecolor() == to_rgba("#08519c")) == above


def test_a_band_is_clear_up_to_even_attention_and_darker_above():
    signal, weights = np.zeros((12, 1000)), np.full((12, 1000), 0.7)
    weights[0, :100], weights[1, :100] = 1.0, 1.2
    axes = Figure().add_subplot()
    _, band = draw_ecg(axes, signal, list(STANDARD_LEADS), np.ones(12, bool), 100, weights)
    alphas = band.cmap(band.norm(np.array([0.5, 1.0, 1.1, 1.2, 1.25])))[:, 3]
    assert alphas[0] == alphas[1] == 0 and (np.diff(alphas[1:]) > 0).all() and alphas[-1] < 0.7


def test_absent_leads_are_marked_on_the_ecg_and_in_the_map():
    model = survival_model()
    found = Explanation.of(record(("I", "II", "V2")), model, extractor(model.config))
    absent = ~found.lead_mask
    assert absent.sum() == 5 and np.isnan(found.lead_map[absent]).all() and np.isnan(found.lead_map[:, absent]).all()
    np.testing.assert_allclose(np.nansum(found.lead_map[found.lead_mask], axis=1), 1, atol=1e-5)
    received = found.output.time_attention[0].double().numpy().mean(axis=1)  # over queries
    np.testing.assert_allclose(found.attention, sample_attention(received, model.config))
    words = said(page(model, record(("I", "II", "V2"))))
    assert words.count("not recorded") == 5 and "V1, V3, V4, V5, V6: not in the recording" in words


def test_a_network_without_attention_gets_black_traces_and_says_so():
    model = survival_model(use_time_attention=False, use_lead_attention=False)
    words = said(page(model))
    assert "no time attention" in words and "no lead attention" in words and "receptive field of one" not in words


def test_slots_of_the_reference_layout_are_not_called_leads():
    words = said(page(survival_model(lead_layout="reference")))
    assert "slot 12" in words and "tell no leads apart" in words


def test_covariates_come_from_the_record_or_from_the_caller():
    model = survival_model(covariate_names=["age", "sex"], covariate_means=[60, 0.5], covariate_stds=[10, 0.5])
    with torch.no_grad():
        model.covariate_head.weight.copy_(torch.tensor([[1.0, 0.1]]))
    fe = extractor(model.config)
    default, same, older = (Explanation.of(record(), model, fe, given) for given in (None, [63, 1], [73, 1]))
    assert float(default.output.log_hazard) == pytest.approx(float(same.output.log_hazard))
    assert float(older.output.log_hazard - same.output.log_hazard) == pytest.approx(1.0, abs=1e-4)
    with pytest.raises(ValueError, match="covariates: expected 2 values for age, sex, got 1"):
        Explanation.of(record(), model, fe, [63])


def test_explaining_leaves_the_model_as_it_was_and_repeats_itself():
    model = survival_model()
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first, second = (Explanation.of(record(), model, extractor(model.config)) for _ in range(2))
    assert model.training and all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    np.testing.assert_array_equal(first.attention, second.attention)


def test_an_ecg_the_feature_extractor_refuses_is_refused():
    short = EcgRecord(record().signal_mv[:, :600], 500, STANDARD_LEADS)
    with pytest.raises(ValueError, match=r"expected at least 2\.4 s"):
        page(survival_model(), short)


@pytest.mark.parametrize(("height_mv", "gain"), [(1.0, 10.0), (3.0, 5.0), (9.0, 2.5)])
def test_1_mv_is_10_mm_and_1_s_is_25_mm_and_tall_leads_halve_the_gain(height_mv, gain):
    signal = np.zeros((12, 600))
    signal[:, 300] = height_mv
    axes = Figure().add_subplot()
    found, traces = draw_ecg(axes, signal, list(STANDARD_LEADS), np.ones(12, dtype=bool), 500)
    assert found == gain and traces is None
    pulse, trace = axes.lines[0].get_xydata(), axes.lines[1].get_xydata()
    assert np.ptp(pulse[:, 1]) == gain and pulse[3, 0] - pulse[2, 0] == pytest.approx(5)  # 1 mV for 200 ms
    assert np.ptp(trace[:, 1]) == pytest.approx(gain * height_mv)
    assert trace[500, 0] - trace[0, 0] == pytest.approx(25)


@pytest.mark.parametrize(("style", "pieces"), [("3x4", 4), ("6x2", 2), ("12x1", 1)])
def test_columns_follow_each_other_in_time_and_a_strip_shows_all_of_lead_ii(style, pieces):
    layout = Layout.of(12, 10.0, style)
    panels = layout.panels(list(STANDARD_LEADS), 1000, np.ones(12, dtype=bool))
    assert [(panel.start, panel.stop) for panel in panels[:12]] == [
        (1000 // pieces * (lead * pieces // 12), 1000 // pieces * (lead * pieces // 12 + 1)) for lead in range(12)
    ]
    assert layout.width_mm <= 277 and layout.height_mm <= 133  # true to scale on A4
    strips = [(STANDARD_LEADS[panel.lead], panel.start, panel.stop) for panel in panels[12:]]
    assert strips == ([("II", 0, 1000)] if style == "3x4" else [])


def test_the_strip_is_of_a_recorded_lead_and_a_bad_layout_is_refused():
    recorded = np.array([lead == "V1" for lead in STANDARD_LEADS])
    strip = Layout.of(12, 10.0).panels(list(STANDARD_LEADS), 1000, recorded)[-1]
    assert STANDARD_LEADS[strip.lead] == "V1"
    with pytest.raises(ValueError, match="layout: expected one of 3x4, 6x2, 12x1, got '4x3'"):
        Layout.of(12, 10.0, "4x3")


def test_bands_lie_behind_their_piece_of_the_trace_and_have_its_weights():
    signal = np.random.default_rng(0).normal(0, 0.2, (12, 1000))
    weights = np.arange(12000, dtype=float).reshape(12, 1000)
    axes = Figure().add_subplot()
    _, last = draw_ecg(axes, signal, list(STANDARD_LEADS), np.ones(12, dtype=bool), 100, weights)
    bands = axes.images
    assert len(bands) == 13 and bands[-1] is last
    np.testing.assert_array_equal(bands[5].get_array()[0], weights[5, 250:500])  # aVF: the second column
    left, right, bottom, top = bands[5].get_extent()
    trace = next(
        line.get_xydata() for line in axes.lines if len(line.get_xdata()) == 250 and line.get_xdata()[0] == left
    )
    assert trace[-1, 0] == pytest.approx(right) and bottom < top and bands[5].get_zorder() < axes.lines[1].get_zorder()
    assert last.cmap(0.0)[3] == 0 and last.cmap(1.0)[3] < 0.7  # clear where least, seen through where most


def test_what_is_measured_stands_on_the_page():
    words = said(page(light_classifier()))
    assert "Measured: rate" in words and "QTc (Fridericia)" in words and "resampled" not in words


def test_every_lead_has_its_own_place():
    for seconds in (1.2, 10.0):
        layout = Layout.of(12, seconds)
        assert len({layout.origin(index) for index in range(12)}) == 12
        assert all(left + layout.panel_mm <= layout.width_mm for left, _ in map(layout.origin, range(12)))


def test_the_page_is_a4_landscape_and_writes_every_format(tmp_path):
    figure = page(survival_model())
    np.testing.assert_allclose(figure.get_size_inches() * 25.4, (297, 210))
    for suffix in ("png", "pdf", "svg"):
        figure.savefig(tmp_path / f"page.{suffix}")
        assert (tmp_path / f"page.{suffix}").stat().st_size > 20_000


def test_the_page_names_the_method_what_it_explains_and_what_tests_said():
    words = said(page(light_classifier(), method="integrated-gradients", label="MI", findings=["Not tested: x"]))
    for expected in (
        "integrated-gradients: logit of MI",
        "Part of the logit of MI by lead",
        "Not tested: x",
        "sum to",
    ):
        assert expected in words
    assert "Lead attention" not in words
    words = said(page(light_classifier(), method="occlusion"))
    assert "QRS" in words and "loses without a lead" in words
    with pytest.raises(ValueError, match="label: attention is the same for every label"):
        page(classifier(), label="MI")


def test_lead_bars_are_what_each_lead_adds_and_absent_leads_have_none():
    figure = page(light_classifier(), record(("I", "II", "V2")), method="occlusion")
    bars = next(axes for axes in figure.axes if "loses without" in axes.get_title())
    widths = np.array([bar.get_width() for bar in bars.patches])
    there = np.isin(STANDARD_LEADS, ("I", "II", "III", "aVR", "aVL", "aVF", "V2"))
    assert (widths[~there] == 0).all() and (widths[there] != 0).all()
