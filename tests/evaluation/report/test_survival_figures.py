import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from ecgdan_hf import files
from ecgdan_hf.evaluation.measures.absolute_risk import decision_curve
from ecgdan_hf.evaluation.measures.survival import calibration
from ecgdan_hf.evaluation.report import survival_report
from ecgdan_hf.evaluation.report.attention_figures import lead_attention_figure
from ecgdan_hf.evaluation.report.figure_style import STYLES, WIDTH_INCHES
from ecgdan_hf.evaluation.report.performance_figures import (
    auc_figure,
    calibration_figure,
    decision_curve_figure,
    forest_figure,
)
from ecgdan_hf.evaluation.report.survival_figures import (
    kaplan_meier_figure,
    risk_groups,
    risk_histogram_figure,
)

RNG = np.random.default_rng(0)
NUM = 300
HAZARD = RNG.normal(size=NUM)
HAPPENS = RNG.exponential(20 / np.exp(HAZARD))
CENSORED = RNG.uniform(1, 12, NUM)
EVENT, TIME = (HAPPENS <= CENSORED).astype(int), np.minimum(HAPPENS, CENSORED)
RISK = 1 - np.exp(-5 / 20 * np.exp(HAZARD))
GROUPS = calibration(EVENT, TIME, RISK, 5.0, num_groups=5)
YEARS = np.arange(1.0, 9.0)
FOUND = {"concordance_index": {"estimate": 0.7, "low": 0.65, "high": 0.76}, "num_records": NUM, "num_events": 90}
NONE = {"concordance_index": None, "num_records": 12, "num_events": 0}
SUBGROUPS = {"sex": {"female": FOUND, "male": FOUND}, "age": {"under 50": NONE, "50 and over": FOUND}}
MAPS = RNG.dirichlet(np.ones(12), size=(NUM, 12))
HIGH = (HAZARD > 1).astype(int)
CURVES = {"a network": {"years": YEARS, "auc": 0.7 + 0 * YEARS, "low": 0.6 + 0 * YEARS, "high": 0.8 + 0 * YEARS},
          "age and sex": {"years": YEARS, "auc": 0.6 + 0 * YEARS}}  # fmt: skip
NET_BENEFIT = decision_curve(EVENT, TIME, RISK, 5.0)

DRAW = {
    "tertiles": lambda simulated: kaplan_meier_figure(EVENT, TIME, HAZARD, simulated),
    "prevalence": lambda simulated: kaplan_meier_figure(EVENT, TIME, HAZARD, simulated, kind="prevalence"),
    "quantiles": lambda simulated: kaplan_meier_figure(EVENT, TIME, HAZARD, simulated, kind="quantiles=5"),
    "histogram": lambda simulated: risk_histogram_figure(EVENT, HAZARD, simulated),
    "calibration": lambda simulated: calibration_figure(
        GROUPS, RISK, 5, {"predicted": [0.1, 0.4], "observed": [0.1, 0.5]}, simulated, {"slope": "0.9 (0.8 to 1.0)"}
    ),
    "auc": lambda simulated: auc_figure(CURVES, NUM, int(EVENT.sum()), simulated),
    "decision curve": lambda simulated: decision_curve_figure(NET_BENEFIT, 5, NUM, int(EVENT.sum()), simulated),
    "forest": lambda simulated: forest_figure(FOUND, SUBGROUPS, simulated),
    "lead attention": lambda simulated: lead_attention_figure(MAPS, HIGH, EVENT, simulated=simulated),
}


def words(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(Text))


def title(figure: Figure) -> str:
    return figure.get_suptitle() or figure.axes[0].get_title()


@pytest.mark.parametrize("name", DRAW)
def test_every_figure_states_records_and_events_and_says_whether_they_are_simulated(name: str):
    real, simulated = DRAW[name](False), DRAW[name](True)
    assert title(simulated).startswith("Simulated outcome: ")
    assert "imulated" not in words(real)
    assert f"n = {NUM}" in title(real)
    assert "events" in title(real) and "simulated events" in title(simulated)


@pytest.mark.parametrize("name", DRAW)
def test_no_text_is_clipped_or_too_small_to_read_at_seven_inches(name: str):
    figure = DRAW[name](True)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    width, height = figure.get_size_inches()
    drawn = figure.get_tightbbox(canvas.get_renderer())
    assert width == WIDTH_INCHES
    assert drawn.x0 >= 0 and drawn.y0 >= 0 and drawn.x1 <= width and drawn.y1 <= height
    assert min(text.get_fontsize() for text in figure.findobj(Text) if text.get_text()) >= 7


def test_no_two_series_share_a_colour_a_line_or_a_marker():
    for look in ("color", "linestyle", "marker"):
        assert len({str(style[look]) for style in STYLES}) == len(STYLES)


def test_the_prevalence_cut_takes_as_many_records_as_had_an_event_from_the_top():
    groups = risk_groups(HAZARD, "prevalence", EVENT)
    assert groups.index.sum() == EVENT.sum()
    assert HAZARD[groups.index == 1].min() > HAZARD[groups.index == 0].max()
    assert len(groups.names) == 2


@pytest.mark.parametrize(("events", "high"), [([0, 0, 0], [0, 0, 0]), ([1, 1, 1], [1, 1, 1])])
def test_the_prevalence_cut_of_no_or_only_events_is_one_group(events: list[int], high: list[int]):
    assert risk_groups([1.0, 2.0, 3.0], "prevalence", events).index.tolist() == high


def test_groups_are_cut_within_each_fold_because_folds_share_no_scale():
    fold = np.arange(NUM) % 2
    index = risk_groups(HAZARD + 100 * fold, "quantiles=4", fold=fold).index
    for part in (0, 1):
        assert np.bincount(index[fold == part]).tolist() == [38, 37, 38, 37]


def test_equal_scores_stay_in_one_group():
    assert len(set(risk_groups(np.zeros(9), "tertiles").index)) == 1
    assert risk_groups([0, 1, 1, 1, 1, 2], "quantiles=2").index.tolist() == [0, 0, 0, 0, 0, 1]


@pytest.mark.parametrize("num", [2, 3, 7, 30, 100])
def test_thirds_differ_in_size_by_one_at_most(num: int):
    sizes = np.bincount(risk_groups(RNG.permutation(num)).index, minlength=3)
    assert sizes.sum() == num and sizes.max() - sizes.min() <= 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "halves"}, "kind: expected tertiles, prevalence or quantiles=2 to quantiles=5, found halves"),
        ({"kind": "quantiles=9"}, "found quantiles=9"),
        ({"kind": "prevalence"}, "event: expected one value per record for kind prevalence, found none"),
        ({"event": [0, 2, 1]}, "event: expected 0 or 1, found 2"),
        ({"event": [0, 1]}, r"event: expected 3 values, one per record, found shape \(2,\)"),
        ({"fold": [0, 1]}, r"fold: expected 3 values, one per record, found shape \(2,\)"),
        ({"score": [1.0, np.nan, 2.0]}, "score: expected finite values, got 1 NaN or infinite"),
    ],
)
def test_groups_refuse_bad_input(arguments: dict, message: str):
    with pytest.raises(ValueError, match=message):
        risk_groups(**{"score": [1.0, 2.0, 3.0], **arguments})


def test_numbers_at_risk_are_counted_at_each_year_of_each_group():
    figure = DRAW["prevalence"](False)
    groups = risk_groups(HAZARD, "prevalence", EVENT).index
    table = figure.axes[1]
    for text in table.texts:
        year, row = text.get_position()
        assert int(text.get_text()) == int(((groups == -row) & (year <= TIME)).sum())
    assert [label.get_text() for label in table.get_yticklabels()] == [
        f"{name} ({EVENT[groups == row].sum()} ev.)" for row, name in enumerate(("lower", "highest"))
    ]


def test_a_curve_that_hardly_falls_is_enlarged_and_the_axis_says_so():
    rare = EVENT * (RNG.random(NUM) < 0.05)
    axes = kaplan_meier_figure(rare, TIME, HAZARD).axes[0]
    assert axes.get_ylim()[0] > 0.5 and "axis from" in axes.get_ylabel()
    assert kaplan_meier_figure(EVENT, TIME, HAZARD).axes[0].get_ylim()[0] == 0


def test_curves_end_where_few_are_left_at_risk():
    time = np.sort(RNG.uniform(1, 10, 1200))
    line = kaplan_meier_figure(np.ones(1200), time, np.zeros(1200)).axes[0].lines[0]
    assert line.get_xdata()[-1] == pytest.approx(time[-24])  # 2 % of 1200
    few = kaplan_meier_figure(np.ones(6), time[:6], np.zeros(6)).axes[0].lines[0]
    assert few.get_xdata()[-1] == pytest.approx(time[5])


def test_equal_scores_draw_one_curve_and_no_test():
    assert "one group, no log-rank test" in title(kaplan_meier_figure(EVENT, TIME, np.zeros(NUM)))


def test_the_histogram_gives_each_group_as_shares_of_itself():
    axes = risk_histogram_figure(EVENT, HAZARD, num_bins=10).axes[0]
    heights = np.array([bar.get_height() for bar in axes.patches if hasattr(bar, "get_height")])
    np.testing.assert_allclose(heights.reshape(-1, 10).sum(axis=1), 1)


def test_calibration_draws_each_group_that_was_followed_to_the_horizon():
    short = GROUPS.copy()
    short.loc[0, ["observed", "low", "high"]] = np.nan
    axes = calibration_figure(short, RISK, 5).axes[0]
    points = next(line for line in axes.lines if line.get_marker() == "o")
    np.testing.assert_allclose(points.get_xdata(orig=False), GROUPS["predicted"][1:])
    np.testing.assert_allclose(points.get_ydata(orig=False), GROUPS["observed"][1:])
    assert "1 followed too briefly" in axes.get_legend().get_texts()[-1].get_text()


def test_the_forest_has_a_row_with_records_and_events_for_each_level_and_says_what_is_not_estimable():
    said = words(forest_figure(FOUND, SUBGROUPS))
    assert said.count("0.700 (0.650 to 0.760)") == 4 and said.count("not estimable") == 1
    for level in ("female", "male", "under 50", "50 and over", "sex", "age"):
        assert level in said


def test_the_lead_maps_are_mean_sd_and_difference_on_shared_scales():
    figure = DRAW["lead attention"](False)
    images = [axes.images[0] for axes in figure.axes if axes.images and len(axes.images[0].get_array()) == 12]
    low, high = MAPS[HIGH == 0], MAPS[HIGH == 1]
    means = low.mean(0), high.mean(0), high.mean(0) - low.mean(0)
    spreads = low.std(0, ddof=1), high.std(0, ddof=1), high.std(0, ddof=1) - low.std(0, ddof=1)
    for image, expected in zip(images, (*means, *spreads), strict=True):
        np.testing.assert_allclose(image.get_array(), expected)
    assert len({images[index].get_clim() for index in (0, 1, 3, 4)}) == 1
    assert images[2].get_clim() == images[5].get_clim() and sum(images[2].get_clim()) == 0
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()][:4] == ["I", "II", "III", "aVR"]


def test_absent_leads_are_left_out_of_means_of_maps():
    maps = MAPS.copy()
    maps[:5, 3] = np.nan
    image = lead_attention_figure(maps, HIGH, EVENT).axes[0].images[0].get_array()
    np.testing.assert_allclose(image[3], np.nanmean(maps[HIGH == 0], axis=0)[3])


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: auc_figure({}, 1, 1), "curves: expected 1 to 7 models, found 0"),
        (lambda: auc_figure({"a": {"years": [1]}}, 1, 1), r"curves\['a'\]: expected columns years, auc, found years"),
        (lambda: auc_figure({"a": {"years": [1], "auc": ["x"]}}, 1, 1), "expected numbers in years, auc"),
        (lambda: calibration_figure(GROUPS, [1.2], 5), "risk: expected probabilities between 0 and 1, found 1.2 to"),
        (lambda: calibration_figure(GROUPS, RISK, 0), "horizon_years: expected positive years, found 0"),
        (lambda: calibration_figure({"predicted": [1]}, RISK, 5), "groups: expected columns predicted, observed"),
        (
            lambda: forest_figure(NONE, {"sex": {"male": NONE}}),
            "subgroups: expected an estimate, found none in 2 rows",
        ),
        (lambda: lead_attention_figure(MAPS[0], [1], [1]), r"lead_attention: expected shape \(n, 12, 12\), found"),
        (lambda: lead_attention_figure(MAPS, 0 * HIGH, EVENT), "found 300 low, 0 high"),
        (lambda: risk_histogram_figure([0, 1], [0.1]), "log_hazard: expected 2 values, one per record, got shape"),
        (lambda: risk_histogram_figure([], []), "event: expected at least one record, found none"),
        (lambda: kaplan_meier_figure([0, 1], [1, 2], [0.1]), "log_hazard: expected 2 values"),
    ],
)
def test_figures_refuse_bad_input_in_one_line(draw, message: str):
    with pytest.raises(ValueError, match=message) as found:
        draw()
    assert "\n" not in str(found.value)


def test_a_decision_curve_shows_the_model_beside_treating_all_and_nobody() -> None:
    model, everybody, nobody = decision_curve_figure(NET_BENEFIT, 5, NUM, 90).axes[0].lines
    np.testing.assert_allclose(model.get_ydata(), NET_BENEFIT["model"])
    np.testing.assert_allclose(everybody.get_ydata(), NET_BENEFIT["treat_all"])
    assert list(nobody.get_ydata()) == [0, 0]
    with pytest.raises(ValueError, match="curve: expected net benefit at one threshold or more, found none"):
        decision_curve_figure({"threshold": [0.1], "model": [np.nan], "treat_all": [0.0]}, 5, NUM, 90)


def test_every_figure_of_the_page_goes_when_another_result_takes_its_place() -> None:
    assert {file for file, _ in survival_report._FIGURES.values()} <= set(files._OF_RESULTS)
