"""Limb leads that contradict each other are flagged in every format, by the check and by the feature extractor."""

import numpy as np
import pytest
from fixtures import write_vendor_files as vendor

from ecgdan_hf.data import formats
from ecgdan_hf.data.check.signals import check_signal
from ecgdan_hf.data.record import EcgRecord
from ecgdan_hf.model.configuration_ecgdan import STANDARD_LEADS
from ecgdan_hf.model.leads_ecgdan import contradicting_leads

ROW = {lead: row for row, lead in enumerate(STANDARD_LEADS)}


def exchanged(signal, a, b):
    signal = np.array(signal)
    signal[[ROW[a], ROW[b]]] = signal[[ROW[b], ROW[a]]]
    return signal


def inverted(signal, lead):
    signal = np.array(signal)
    signal[ROW[lead]] *= -1
    return signal


FAULTS = {
    "limb_leads_contradict:aVL+aVF": lambda signal: exchanged(signal, "aVL", "aVF"),
    "limb_leads_contradict:aVR": lambda signal: inverted(signal, "aVR"),
    "limb_leads_contradict:I+II": lambda signal: exchanged(signal, "I", "II"),
    "limb_leads_contradict:III": lambda signal: inverted(signal, "III"),
}


@pytest.mark.parametrize("flag", FAULTS)
@pytest.mark.parametrize(
    "write", [vendor.hl7_aecg, vendor.dicom, vendor.scp_ecg, vendor.mfer, vendor.ishne, vendor.csv]
)
def test_exchanged_and_inverted_limb_leads_are_flagged_in_every_format(tmp_path, write, flag):
    (tmp_path / "a").write_bytes(write(FAULTS[flag](vendor.counts())))
    record = formats.read(tmp_path / "a")
    assert [each for each in record.flags if each.startswith("limb")] == [flag]


@pytest.mark.parametrize("flag", FAULTS)
def test_check_and_feature_extractor_say_so_too(ecg, extractor, flag):
    record = EcgRecord(FAULTS[flag](ecg), 500, STANDARD_LEADS)
    assert check_signal(record).problems["limb_leads_contradict"] == flag.partition(":")[2]
    assert flag in extractor(**record.as_inputs(), return_flags=True)["flags"][0]


@pytest.mark.parametrize("write", [vendor.hl7_aecg, vendor.muse, vendor.dicom])
def test_leads_that_agree_up_to_rounding_and_wander_are_not_flagged(tmp_path, write):
    values = vendor.counts()
    values[ROW["aVL"]] += np.round(100 * np.sin(np.arange(values.shape[1]) / 400)).astype(values.dtype)
    (tmp_path / "a").write_bytes(write(values))
    assert not [flag for flag in formats.read(tmp_path / "a").flags if flag.startswith("limb")]


def test_two_limb_leads_flat_ones_and_missing_samples_contradict_nothing(ecg):
    leads = dict(zip(STANDARD_LEADS, ecg, strict=True))
    assert contradicting_leads({lead: leads[lead] for lead in ("I", "II", "V1")}, 500) == []
    assert contradicting_leads({**leads, "aVF": np.zeros(5000)}, 500) == []
    gappy = ecg.copy()
    gappy[3, 100:400] = np.nan
    assert contradicting_leads(dict(zip(STANDARD_LEADS, gappy, strict=True)), 500) == []


def test_without_i_and_ii_the_first_two_are_compared_with_the_rest(ecg):
    leads = dict(zip(STANDARD_LEADS, ecg, strict=True))
    few = {lead: leads[lead] for lead in ("III", "aVR", "aVL", "aVF")}
    assert contradicting_leads(few, 500) == []
    assert contradicting_leads({**few, "aVF": -leads["aVF"]}, 500) == ["aVF"]


def test_leads_scaled_one_by_one_are_not_flagged_and_exchanged_ones_among_them_are(ecg):
    gains = np.random.default_rng(0).uniform(0.4, 2.5, len(STANDARD_LEADS))[:, None]
    scaled = ecg * gains
    assert contradicting_leads(dict(zip(STANDARD_LEADS, scaled, strict=True)), 500) == []
    for flag, corrupt in FAULTS.items():
        wrong = contradicting_leads(dict(zip(STANDARD_LEADS, corrupt(scaled), strict=True)), 500)
        assert "+".join(wrong) == flag.partition(":")[2]


def test_a_limb_lead_that_shows_something_else_is_flagged_whatever_its_gain(ecg):
    leads = dict(zip(STANDARD_LEADS, ecg, strict=True))
    assert contradicting_leads({**leads, "aVF": np.roll(leads["aVF"], 300)}, 500) == ["aVF"]


def test_exchanged_leads_of_one_axis_are_flagged_though_each_is_a_multiple_of_the_other(ecg):
    left, foot = ecg[1], 1.4 * ecg[1]
    leads = {"I": left, "II": foot, "III": foot - left, "aVR": -(left + foot) / 2}
    leads |= {"aVL": left - foot / 2, "aVF": foot - left / 2}
    assert contradicting_leads(leads, 500) == []
    assert contradicting_leads({**leads, "aVL": leads["aVF"], "aVF": leads["aVL"]}, 500) == ["aVL", "aVF"]
