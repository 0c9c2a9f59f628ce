from dataclasses import replace

import numpy as np
import pytest

from ecgdan_hf.data.check.electrodes import SWAPS, TURNS, _limb_scores
from ecgdan_hf.data.check.folder import _is_missing
from ecgdan_hf.data.check.signals import _representative_beat, _signal_hash, check_signal
from ecgdan_hf.data.record import EcgRecord
from ecgdan_hf.data.simulate import synthetic
from ecgdan_hf.model.configuration_ecgdan import STANDARD_LEADS
from ecgdan_hf.model.feature_extraction_ecgdan import EcgDanFeatureExtractor

INDEX = {lead: i for i, lead in enumerate(STANDARD_LEADS)}
PROPER_SWAPS = tuple(kind for kind in SWAPS if kind != "LA-LL")


def record(signal_mv, sampling_rate=500.0, lead_names=STANDARD_LEADS):
    return EcgRecord(signal_mv, sampling_rate, tuple(lead_names))


def problems(signal_mv, **options):
    return check_signal(record(signal_mv, **options)).problems


def with_limb_leads(signal_mv, first, second):
    """The ECG with other leads I and II and what follows from them."""
    limb = [first, second, second - first, -(first + second) / 2, first - second / 2, second - first / 2]
    return np.concatenate([np.stack(limb), signal_mv[6:]])


def reversed_limb_leads(signal_mv, kind):
    first, second = np.array(SWAPS[kind]) @ signal_mv[:2]
    return with_limb_leads(signal_mv, first, second)


@pytest.fixture(scope="module")
def hearts():
    """Twelve synthetic ECGs that differ in axis, size, rate and width."""
    return [synthetic.make_signal(0.0, 85.0 + 4 * seed, 55.0 + 4 * seed, seed=100 + seed) for seed in range(12)]


def test_a_good_signal_has_no_problem_and_a_plausible_size(ecg):
    found = check_signal(record(ecg))
    assert found.problems == {}
    assert 0.3 < found.qrs_mv < 3
    assert len(found.signal_hash) == 32


def test_flat_leads_are_named(ecg):
    spoiled = ecg.copy()
    spoiled[[INDEX["V3"], INDEX["V4"]]] = 0.123
    assert problems(spoiled) == {"lead_flat": "V3+V4"}


def test_clipped_leads_are_named(ecg):
    spoiled = ecg.copy()
    spoiled[INDEX["V5"]] = np.minimum(spoiled[INDEX["V5"]], 0.5 * spoiled[INDEX["V5"]].max())
    assert problems(spoiled) == {"lead_clipped": "V5"}


def test_missing_samples_are_told_from_short_gaps(ecg):
    spoiled = ecg.copy()
    spoiled[INDEX["V2"], :1000] = np.nan
    spoiled[INDEX["V6"], 300:350] = np.nan
    assert problems(spoiled) == {"lead_missing_samples": "V2", "short_gaps": "V6"}


def test_limb_leads_of_unequal_gain_break_einthovens_law(ecg):
    spoiled = ecg.copy()
    spoiled[INDEX["II"]] *= 2
    assert float(problems(spoiled)["einthoven_residual"]) > 0.2


def test_a_signal_without_any_usable_lead_says_so(ecg):
    assert problems(np.zeros_like(ecg)) == {"lead_flat": "+".join(STANDARD_LEADS), "no_usable_lead": ""}


def test_a_signal_without_heart_beats_says_so(ecg):
    drift = np.cumsum(np.random.default_rng(0).normal(0, 1e-3, (12, 1500)), axis=1)
    assert "no_heart_beat" in problems(drift)


def test_a_rate_five_times_too_low_makes_the_heart_impossible(ecg):
    assert problems(ecg, sampling_rate=100)["heart_rate_impossible"] == "14/min"


def test_a_rate_that_is_half_of_the_true_one_is_doubted(ecg):
    assert problems(ecg, sampling_rate=250) == {"sampling_rate_doubtful": "35/min", "doubtful": "rate_halved"}


def test_two_beats_are_too_few(ecg):
    short = synthetic.make_signal(0.0, 98.0, 50.0, seed=5)[:, :1500]
    assert "too_few_beats" in problems(short)


@pytest.mark.parametrize(
    ("factor", "expected"),
    [(10, "impossible"), (0.04, "impossible"), (0.15, "doubtful"), (4, "doubtful")],
)
def test_amplitudes_that_no_or_few_ecgs_have_are_found(ecg, factor, expected):
    scaled = ecg * factor / check_signal(record(ecg)).qrs_mv * 1.05  # 1.05 mV is ordinary
    found = problems(scaled)
    expected = f"amplitude_{expected}"
    assert [name for name in found if name.startswith("amplitude")] == [expected]
    assert "mV" in found[expected]


def test_unknown_leads_and_short_signals_are_refused(ecg):
    with pytest.raises(ValueError, match="'ABP' is no lead"):
        problems(ecg[:1], lead_names=["ABP"])
    with pytest.raises(ValueError, match=r"expected at least 2.4 s"):
        problems(ecg[:, :1000])


def test_exchanges_are_maps_of_i_and_ii_that_permute_three_electrodes():
    potentials = np.random.default_rng(1).normal(size=(3, 50))  # RA, LA, LL
    places = {
        "RA-LA": (1, 0, 2), "RA-LL": (2, 1, 0), "LA-LL": (0, 2, 1), "RA-LA-LL": (1, 2, 0), "RA-LL-LA": (2, 0, 1)
    }  # fmt: skip
    limb = np.stack([potentials[1] - potentials[0], potentials[2] - potentials[0]])
    for kind, place in places.items():
        right, left, leg = potentials[list(place)]
        np.testing.assert_allclose(np.array(SWAPS[kind]) @ limb, np.stack([left - right, leg - right]))
        np.testing.assert_allclose(TURNS[kind] @ TURNS[kind].T, np.eye(2), atol=1e-12)


def test_the_agreement_with_the_chest_leads_is_the_same_after_exchange_and_undoing(ecg):
    scores = _limb_scores(_representative_beat(record(ecg)))
    assert max(scores, key=scores.__getitem__) == "none"
    for kind in SWAPS:
        swapped = _limb_scores(_representative_beat(record(reversed_limb_leads(ecg, kind))))
        assert swapped[kind] == pytest.approx(scores["none"], abs=0.02)


def test_limb_leads_as_recorded_raise_no_alarm(hearts):
    assert [problems(signal) for signal in hearts] == [{}] * len(hearts)


@pytest.mark.parametrize("kind", PROPER_SWAPS)
def test_exchanged_limb_electrodes_are_found(hearts, kind):
    found = [problems(reversed_limb_leads(signal, kind)).get("limb_leads_reversed") for signal in hearts]
    assert sum(name is not None for name in found) >= 6  # real hearts are told better, see the benchmark
    assert sum(name == kind for name in found) >= 5


def test_the_right_legs_electrode_on_an_arm_leaves_a_silent_limb_lead(ecg):
    legs = 0.02 * ecg[1]
    right_arm = with_limb_leads(ecg, -(ecg[1] - ecg[0]) - legs, -legs)
    left_arm = with_limb_leads(ecg, ecg[1] + legs, ecg[1])
    assert problems(right_arm)["limb_leads_reversed"] == "RL"
    assert problems(left_arm)["limb_leads_reversed"] == "RL"


def test_nothing_is_said_of_limb_electrodes_without_the_chest_leads(ecg):
    assert problems(reversed_limb_leads(ecg, "RA-LA")[:6], lead_names=STANDARD_LEADS[:6]) == {}


def test_exchanged_chest_electrodes_are_found(hearts):
    found = []
    for signal in hearts:
        spoiled = signal.copy()
        spoiled[[INDEX["V1"], INDEX["V4"]]] = signal[[INDEX["V4"], INDEX["V1"]]]
        found.append(problems(spoiled).get("chest_leads_exchanged"))
    assert found.count("V1-V4") >= 11


def test_what_the_feature_extractor_flags_is_found_too(ecg):
    """The check applies its limits at another rate, by its own code: both must agree."""
    spoiled = ecg.copy()
    spoiled[INDEX["V3"]] = 0.0
    spoiled[INDEX["V5"]] = np.minimum(spoiled[INDEX["V5"]], 0.5 * spoiled[INDEX["V5"]].max())
    spoiled[INDEX["II"]] *= 2
    inputs = EcgDanFeatureExtractor()(**record(spoiled).as_inputs(), return_flags=True)
    names = {"lead_flat", "lead_clipped", "einthoven_residual"}
    assert names == {flag.split(":")[0] for flag in inputs["flags"][0]} & names == problems(spoiled).keys() & names


def test_the_hash_finds_the_signal_again_in_another_order_and_without_the_leads_that_follow(ecg):
    steps = np.round(ecg * 1000) / 1000  # as stored
    whole = _signal_hash(record(steps))
    order = [7, 1, 0, 6, 11, 10, 9, 8]
    assert _signal_hash(record(steps[order], lead_names=[STANDARD_LEADS[i] for i in order])) == whole
    assert _signal_hash(record(steps, sampling_rate=250)) == whole
    assert _signal_hash(record(np.round(steps.astype(np.float64), 4))) == whole
    assert _signal_hash(record(steps[:1], lead_names=["MLII"])) == _signal_hash(record(steps[:1], lead_names=["II"]))


def test_halves_of_a_microvolt_do_not_hide_a_copy(ecg):
    """A file of 2.5 uV a count is full of them; a copy in text differs in the last bits."""
    counts = np.round(ecg / 2.5e-3).astype(np.float64)
    assert _signal_hash(record(counts * 2.5e-3 + 1e-9)) == _signal_hash(record(counts * 2.5e-3 - 1e-9))


def test_the_hash_tells_signals_apart_that_differ_in_one_sample(ecg):
    other, lost = ecg.copy(), ecg.copy()
    other[INDEX["V4"], 77] += 0.002
    lost[INDEX["V4"], 77] = np.nan
    assert len({_signal_hash(record(signal)) for signal in (ecg, other, lost)}) == 3
    assert _signal_hash(record(lost)) == _signal_hash(replace(record(lost), record_id="copy"))


def test_limb_leads_that_follow_from_two_others_are_not_missing():
    assert not _is_missing("aVF", ["I", "II"])
    assert _is_missing("aVF", ["I", "V1"])
    assert _is_missing("V2", ["I", "II", "V1"])
