import re
from datetime import date

import numpy as np
import pytest
import wfdb
from fixtures.write_cardiosoft import cardiosoft_xml, counts_of, plain_median_beat, waveforms
from numpy.testing import assert_allclose, assert_array_equal

from ecgdan_hf.data.readers import cardiosoft
from ecgdan_hf.data.readers.cardiosoft import CARDIOSOFT, observation_date, read_cardiosoft
from ecgdan_hf.model.configuration_ecgdan import STANDARD_LEADS
from ecgdan_hf.model.feature_extraction_ecgdan import EcgDanFeatureExtractor


@pytest.fixture(scope="module")
def beat(ecg) -> np.ndarray:
    """(12, 600) millivolt; any stretch will do."""
    return ecg[:, 1000:1600]


@pytest.fixture(scope="module")
def xml(ecg, beat) -> str:
    return cardiosoft_xml(ecg, beat)


def read(text: str, encoding: str = "latin-1"):
    return read_cardiosoft(text.encode(encoding), "folder/9000001_20205_2_0.xml")


def edited(text: str, old: str, new: str, count: int = -1) -> str:
    assert old in text
    return text.replace(old, new, count)


def of_lead(text: str, lead: str, change) -> str:
    """The text with the samples of one lead of the strip changed."""
    head, tail = text.split("<StripData>")
    found = re.search(rf'(<WaveformData lead="{lead}">)(.*?)(</WaveformData>)', tail, re.DOTALL)
    values = [word.strip() for word in found[2].split(",")]
    changed = ",".join(map(str, change(values)))
    return head + "<StripData>" + tail[: found.start(2)] + changed + tail[found.end(2) :]


def refuse(text: str, message: str, encoding: str = "latin-1"):
    with pytest.raises(ValueError, match=message) as error:
        read(text, encoding)
    assert "\n" not in str(error.value) and "9000001_20205_2_0.xml" in str(error.value)


# What comes out


@pytest.mark.filterwarnings("error")
def test_a_file_gives_signal_median_beat_subject_and_report(xml, ecg, beat):
    record = read(xml)
    assert_allclose(record.signal_mv, counts_of(ecg) * 0.005, atol=1e-6)
    assert_allclose(record.median_beat_mv, beat, atol=0.0026)
    assert (record.sampling_rate, record.lead_names) == (500, STANDARD_LEADS)
    assert (record.record_id, record.age, record.sex, record.patient_id) == ("9000001_20205_2_0", 61, "female", None)
    assert record.report == "Sinus rhythm; Left ventricular hypertrophy"
    assert record.flags == ()


def test_a_file_without_median_beat_or_subject_is_read(ecg):
    text = cardiosoft_xml(ecg)
    text = edited(edited(text, "61</Age>", "</Age>"), "FEMALE", "UNKNOWN")
    text = re.sub(r"<Interpretation>.*</Interpretation>", "", text, flags=re.DOTALL)
    record = read(text)
    assert record.median_beat_mv is None and record.flags == ()
    assert (record.age, record.sex, record.report) == (None, None, None)


def test_white_space_trailing_commas_and_case_change_nothing(xml):
    loose = edited(xml, "</WaveformData>", ",\n\t\t</WaveformData>")
    loose = edited(edited(loose, 'lead="aVR"', 'Lead=" AVR "'), '"uVperLsb"', '"UVPERLSB"')
    loose = edited(edited(loose, "<SampleRate", "<sampleRate"), "</SampleRate>", "</sampleRate>")
    assert_array_equal(read(loose).signal_mv, read(xml).signal_mv)
    assert_array_equal(read(loose).median_beat_mv, read(xml).median_beat_mv)


def test_blanks_are_missing_samples(xml):
    record = read(of_lead(xml, "V3", lambda values: [*values[:4000], *[" "] * 1000]))
    assert np.isnan(record.signal_mv[8, 4000:]).all() and np.isfinite(record.signal_mv[8, :4000]).all()
    record = read(of_lead(xml, "V3", lambda values: [" "] * 5000))
    assert np.isnan(record.signal_mv[8]).all() and np.isfinite(record.signal_mv[:8]).all()
    padded = of_lead(xml, "V3", lambda values: [*values, "", "", ""])
    assert_array_equal(read(padded).signal_mv, read(xml).signal_mv)


@pytest.mark.parametrize(("unit", "factor"), [("uVperLsb", 1), ("", 1), ("mVperLsb", 1000)])
def test_the_resolution_is_in_its_unit(ecg, unit, factor):
    value = 5 / factor
    text = edited(cardiosoft_xml(ecg), '<Resolution units="uVperLsb">5', f'<Resolution units="{unit}">{value}')
    assert_allclose(read(text).signal_mv, counts_of(ecg) * 0.005, atol=1e-6)


def test_fewer_leads_are_read_and_their_order_is_the_file_s(xml):
    without = re.sub(r'<WaveformData lead="(III|V6)">.*?</WaveformData>', "", xml, flags=re.DOTALL)
    record = read(edited(without, "<NumberOfLeads>12", "<NumberOfLeads>10"))
    assert record.lead_names == tuple(lead for lead in STANDARD_LEADS if lead not in ("III", "V6"))
    assert record.median_beat_mv.shape == (10, 600)


def test_a_median_beat_of_another_rate_is_resampled_and_its_invalid_ends_stay_missing(ecg, beat):
    thousand = np.repeat(beat, 2, axis=1)
    found = read(cardiosoft_xml(ecg, thousand, median_rate=1000, valid=(100, 999))).median_beat_mv
    assert found.shape == (12, 600)
    assert np.isnan(found[:, :49]).all() and np.isnan(found[:, 501:]).all() and np.isfinite(found[:, 51:499]).all()
    assert np.abs(found - beat)[:, 60:480].max() < 0.1 * np.ptp(beat)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text.replace('lead="V6"', 'lead="V7"', 1),  # not the leads of the strip
        lambda text: text.replace("<ChannelSampleCountTotal>600<", "<ChannelSampleCountTotal>601<"),
        lambda text: text.replace('<SampleRate units="Hz">500', '<SampleRate units="Hz">', 1),
    ],
)
def test_a_median_beat_that_does_not_fit_is_left_out_with_a_flag(xml, spoil):
    assert spoil(xml) != xml
    record = read(spoil(xml))
    assert record.median_beat_mv is None and record.flags == ("median_beat_unusable",)
    assert_array_equal(record.signal_mv, read(xml).signal_mv)


# Einthoven


@pytest.mark.parametrize("lead", ["III", "aVR", "aVL", "aVF"])
def test_a_limb_lead_that_contradicts_the_others_is_refused_by_name(xml, lead):
    refuse(of_lead(xml, lead, lambda values: [-int(value) for value in values]), f"lead {lead}: contradicts")


def test_swapped_leads_are_refused(xml):
    swapped = xml.replace('"aVL"', '"?"').replace('"aVF"', '"aVL"').replace('"?"', '"aVF"')
    refuse(swapped, "lead aVF or aVL: contradicts")
    refuse(of_lead(xml, "I", lambda values: [2 * int(value) for value in values]), "lead I or II: contradicts")


def test_a_few_unlawful_samples_are_flagged_and_rounding_or_another_baseline_is_not(xml):
    few = of_lead(xml, "aVF", lambda values: [*(int(value) + 40 for value in values[:30]), *values[30:]])
    assert read(few).flags == ("einthoven_samples:aVF",)
    shaken = np.random.default_rng(0).integers(-2, 3, 5000)
    shake = of_lead(xml, "aVF", lambda values: [int(v) + s + 100 for v, s in zip(values, shaken, strict=True)])
    assert read(shake).flags == ()


def test_a_flat_limb_lead_is_no_contradiction(xml):
    record = read(of_lead(xml, "III", lambda values: [0] * 5000))
    assert not record.signal_mv[2].any() and record.flags == ()


# Refusals


def test_incomplete_leads_are_refused_with_both_counts(xml):
    refuse(of_lead(xml, "V2", lambda values: values[:4990]), "StripData: lead V2: expected 5000 samples, got 4990")
    refuse(of_lead(xml, "V2", lambda values: [*values, 1]), "lead V2: expected 5000 samples, got 5001")
    undeclared = re.sub(r"<ChannelSampleCountTotal>\d+</ChannelSampleCountTotal>", "", xml)
    refuse(of_lead(undeclared, "V2", lambda values: values[:4990]), "lead V2: expected 5000 samples, got 4990")
    refuse(of_lead(xml, "V2", lambda values: []), "lead V2: expected 5000 samples, got 0")
    for word in ("1 2", "abc", "nan", "inf", "1_000", "1e3", "1.2.3", "-"):
        text = of_lead(xml, "V2", lambda values, word=word: [*values[:-1], word])
        refuse(text, f"lead V2: expected numbers separated by commas, got '{word}'")
    head, tail = xml.split("<StripData>")
    refuse(
        head + "<StripData>" + tail.replace("<NumberOfLeads>12", "<NumberOfLeads>8"), "NumberOfLeads says 8, got 12"
    )


def test_lead_names_must_differ(xml):
    head, tail = xml.split("<StripData>")
    refuse(head + "<StripData>" + edited(tail, 'lead="V2"', 'lead="v1"'), "different lead names, got V1 twice")
    refuse(head + "<StripData>" + edited(tail, ' lead="V2"', ""), "different lead names, got no name for number 8")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            '<SampleRate units="Hz">500',
            '<SampleRate units="Hz">',
            "SampleRate: expected a sampling rate in Hz .* None",
        ),
        ('<SampleRate units="Hz">500', '<SampleRate units="kHz">0.5', "SampleRate: expected Hz, got khz"),
        ('units="uVperLsb">5', 'units="uVperLsb">', "Resolution: expected microvolt per unit .* got '' uvperlsb"),
        ('units="uVperLsb">5', 'units="adu">5', "Resolution: .* got '5' adu"),
        ('units="uVperLsb">5', 'units="uVperLsb">-5', "Resolution: .* above zero, got '-5'"),
    ],
)
def test_rate_and_resolution_are_never_guessed(ecg, old, new, message):
    refuse(edited(cardiosoft_xml(ecg), old, new), message)


def test_files_without_ten_seconds_are_refused_by_what_they_are(ecg, xml, beat):
    strip = re.compile(r"<StripData>.*</StripData>", re.DOTALL)
    refuse(strip.sub("", xml), "got only its median beat; export the ECG with its raw data")
    refuse(strip.sub("<StripData></StripData>", cardiosoft_xml(ecg)), "StripData, got none in a file of type RestECG")
    exercise = strip.sub("<ExerciseMeasurements/><FullDisclosure>1,2</FullDisclosure>", xml)
    refuse(exercise, "got an exercise ECG .of UK Biobank, field 6025")
    nested = f"<StripData><Strip>{waveforms('x', counts_of(ecg)[:, :100])}</Strip></StripData><FullDisclosure/>"
    refuse(strip.sub(nested, xml), "got an exercise ECG")


BOMB = '<!DOCTYPE a [<!ENTITY b "ha"><!ENTITY c "&b;&b;&b;">]>'


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda text: text[: len(text) // 2], "truncated or damaged XML"),
        (lambda text: "", "truncated or damaged XML"),
        (lambda text: text.replace("?>", f"?>{BOMB}", 1), "defines entities or refers to other files"),
        (lambda text: text.replace("ISO8859-1", "nonsense-7"), "not in its declared encoding: unknown encoding"),
        (
            lambda text: text.replace("ISO8859-1", "UTF-8").replace("Sinus", "Vorhof\xfcr"),
            "not in its declared encoding",
        ),
        (lambda text: text.replace("CardiologyXML", "restingECG"), "expected a CardioSoft file .* got <restingECG>"),
    ],
)
def test_damaged_dangerous_and_foreign_xml_is_one_line(xml, spoil, message):
    refuse(spoil(xml), message)


def test_a_huge_file_is_refused_before_it_is_parsed(xml, monkeypatch):
    monkeypatch.setattr(cardiosoft, "MAX_BYTES", 100_000)
    refuse(xml, "expected at most 0 MB of XML")


def test_a_document_type_that_nobody_loads_and_other_encodings_are_read(xml):
    expected = read(xml).signal_mv
    typed = xml.replace("?>", '?><!DOCTYPE CardiologyXML SYSTEM "cardiology.dtd">', 1)
    assert_array_equal(read(typed).signal_mv, expected)
    wide = xml.replace("ISO8859-1", "UTF-16").replace("Sinus", "S\xednus")
    assert read(wide, "utf-16").report.startswith("S\xednus") and CARDIOSOFT.recognises(wide.encode("utf-16")[:4096])


# Without parsing


def test_a_file_is_known_and_dated_by_its_head(xml):
    head = xml.encode("latin-1")[:4096]
    assert CARDIOSOFT.recognises(head) and not CARDIOSOFT.recognises(b"<?xml version='1.0'?><AnnotatedECG/>")
    assert observation_date(head) == date(2015, 6, 1)
    assert observation_date(head.replace(b"<Month>06", b"<Month>13")) is None
    assert observation_date(head.replace(b"<Month>06<", b"<Month><")) is None
    assert observation_date(b"<CardiologyXML></CardiologyXML>") is None


# The cart's median beat in the network


def agreement(extractor: EcgDanFeatureExtractor, signal_mv: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Correlation and RMS difference (mV) of the file's median beat and ours, for each lead; None where it is unlike.

    The file is written from the recording, its median beat computed by `plain_median_beat`.
    """
    inputs = read(cardiosoft_xml(signal_mv, plain_median_beat(signal_mv))).as_inputs()
    taken, _, flags = extractor.condition(**inputs)
    own, _, _ = extractor.condition(**{name: value for name, value in inputs.items() if name != "median_beat"})
    if "median_beat_of_file" not in flags:
        return None
    reached = np.abs(taken).sum(axis=0) > 0
    pairs = list(zip(taken[:, reached], own[:, reached], strict=True))
    return np.array([np.corrcoef(*pair)[0, 1] for pair in pairs]), np.array(
        [np.sqrt(np.mean((a - b) ** 2)) for a, b in pairs]
    )


def test_inputs_hold_the_median_beat_only_where_the_file_does(ecg, beat):
    assert_allclose(read(cardiosoft_xml(ecg, beat)).as_inputs()["median_beat"], beat, atol=0.0026)
    assert "median_beat" not in read(cardiosoft_xml(ecg)).as_inputs()


def test_our_median_beat_of_a_synthetic_ecg_is_the_cart_s(ecg):
    likeness, rms_mv = agreement(EcgDanFeatureExtractor(), ecg)
    print(f"synthetic: median correlation {np.median(likeness):.4f}, largest RMS difference {rms_mv.max():.4f} mV")
    assert np.median(likeness) > 0.98 and rms_mv.max() < 0.03  # lead aVL of this axis holds hardly more than noise


def test_our_median_beat_of_ptbxl_is_that_of_a_plain_median(shared):
    headers = sorted((shared / "data/ptb-xl/records500").glob("*/*.hea"))[::200]
    signals = (wfdb.rdrecord(str(header.with_suffix(""))).p_signal.T for header in headers)
    found = [agreement(EcgDanFeatureExtractor(), signal) for signal in signals]
    alike = [pair for pair in found if pair is not None]
    likeness, rms_mv = (np.concatenate(values) for values in zip(*alike, strict=True))
    print(
        f"PTB-XL: {len(alike)} of {len(found)} alike; per lead correlation median {np.median(likeness):.4f}, 5 % "
        f"{np.percentile(likeness, 5):.4f}; RMS difference median {np.median(rms_mv):.4f} mV, 95 % "
        f"{np.percentile(rms_mv, 95):.4f} mV"
    )
    assert len(alike) >= 0.95 * len(found)
    assert np.median(likeness) > 0.99 and np.percentile(likeness, 5) > 0.93
    assert np.median(rms_mv) < 0.02 and np.percentile(rms_mv, 95) < 0.06
