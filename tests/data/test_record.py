import numpy as np
import pytest

from ecgdan_hf.data.record import EcgRecord, canonical_lead, scp_likelihoods


def make(signal=None, **changes):
    signal = np.random.default_rng(0).normal(size=(2, 50)) if signal is None else signal
    return EcgRecord(**{"signal_mv": signal, "sampling_rate": 500, "lead_names": ("I", "II"), **changes})


def test_lead_names_get_their_standard_spelling_and_unknown_ones_stay():
    assert [canonical_lead(name) for name in ("AVR", "lead i", " v3", "MLII")] == ["aVR", "I", "V3", "MLII"]
    assert make(lead_names=["avf", "V1"]).lead_names == ("aVF", "V1")


def test_a_record_holds_float32_and_gives_the_feature_extractor_what_it_needs(extractor, ecg):
    from ecgdan_hf.model.configuration_ecgdan import STANDARD_LEADS

    record = make(ecg.astype(np.float64), lead_names=STANDARD_LEADS)
    assert record.signal_mv.dtype == np.float32
    assert record.duration_seconds == 10.0
    assert record.as_inputs()["unit"] == "mV"
    assert extractor(**record.as_inputs())["lead_mask"].all()


def test_missing_and_flat_leads_are_kept_and_named():
    signal = np.random.default_rng(0).normal(size=(3, 50))
    signal[0, 3] = np.nan
    signal[1] = np.nan
    signal[2] = 0.1
    record = make(signal, lead_names=("I", "II", "V1"))
    assert record.quality_flags() == ("lead_missing_samples:I+II", "lead_flat:II+V1")
    assert make().quality_flags() == ()


@pytest.mark.parametrize("rate", [0, -500, None, float("nan"), float("inf"), "fast"])
def test_a_rate_that_is_no_rate_is_refused(rate):
    with pytest.raises(ValueError, match="sampling_rate: expected a sampling rate in Hz above zero, got"):
        make(sampling_rate=rate)


def test_adc_counts_and_microvolt_are_refused_with_the_likely_cause():
    noise = np.random.default_rng(0).normal(size=(2, 50))
    with pytest.raises(ValueError, match=r"median range over leads of .*ADC counts or microvolt"):
        make(noise * 1000)
    with pytest.raises(ValueError, match="whole numbers only: probably ADC counts"):
        make(np.round(noise * 3))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"signal": np.zeros(50)}, r"expected an array \(leads, samples\)"),
        ({"signal": np.zeros((2, 0))}, r"expected an array \(leads, samples\)"),
        ({"signal": np.zeros((3, 50))}, "one row for each of 2 lead names"),
        ({"signal": np.full((2, 50), np.nan)}, "got NaN only"),
        ({"signal": np.full((2, 50), np.inf)}, "got infinity"),
        ({"lead_names": ("I", "i")}, "expected different lead names, got I, I"),
        ({"sex": "M"}, "sex: expected 'male', 'female' or None, got 'M'"),
        ({"age": 300.0}, "age: expected years from 0 to 130"),
        ({"median_beat_mv": np.zeros((5, 600))}, "median_beat_mv: expected one row for each of 2 lead names"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_file_named(changes, message):
    with pytest.raises(ValueError, match=message) as caught:
        make(**changes, source="some/file.hea")
    assert str(caught.value).startswith("some/file.hea: ")
    assert "\n" not in str(caught.value)


def test_scp_codes_are_read_from_json_from_a_python_literal_and_from_a_mapping():
    for given in ('{"NORM": 100, "SR": 0.0}', "{'NORM': 100.0, 'SR': 0}", {"NORM": 100, "SR": 0}):
        assert scp_likelihoods(given) == {"NORM": 100.0, "SR": 0.0}
