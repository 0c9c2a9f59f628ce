"""Every format of carts, Holters and hospital systems gives the ECG it was written from."""

import warnings
import zipfile

import numpy as np
import pytest
from fixtures import write_vendor_files as vendor
from fixtures.write_cardiosoft import cardiosoft_xml
from numpy.testing import assert_allclose, assert_array_equal

from ecgdan_hf.data import formats
from ecgdan_hf.model.configuration_ecgdan import STANDARD_LEADS
from ecgdan_hf.model.leads_ecgdan import LIMB_LEADS

KINDS = {
    "hl7.xml": "hl7-aecg",
    "muse.xml": "muse",
    "sierra.xml": "sierra",
    "sierra_xli.xml": "sierra",
    "mortara.xml": "mortara",
    "kardia.json": "kardia",
    "ecg.dcm": "dicom",
    "ecg.scp": "scp-ecg",
    "holter.ecg": "ishne",
    "ecg.mwf": "mfer",
    "ecg.edf": "edf",
    "ecg.csv": "csv",
    "v5.mat": "matlab",
    "v73.mat": "hdf5",
    "ecg.h5": "hdf5",
    "ecg.npy": "numpy",
    "ecg.npz": "numpy",
    "ecg.zip": "zip",
}
VENDORS = [name for name, kind in KINDS.items() if kind not in ("csv", "matlab", "hdf5", "numpy")]
WITH_BEATS = ["hl7.xml", "muse.xml", "mortara.xml", "ecg.dcm", "ecg.zip"]
WITH_STATEMENTS = [*WITH_BEATS, "sierra.xml", "sierra_xli.xml", "ecg.scp"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vendors")
    vendor.write_all(folder)
    return folder


@pytest.fixture(scope="module")
def signal_mv():
    return vendor.millivolt(vendor.counts())


def read(folder, name, **options):
    about = {} if name != "ecg.npy" else {"sampling_rate": 500, "unit": "mV", "lead_names": list(STANDARD_LEADS)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return formats.read(folder / name, **about, **options)


def test_a_file_of_every_format_is_written(folder):
    assert {file.name for file in folder.iterdir()} == set(KINDS)


@pytest.mark.parametrize("name", KINDS)
def test_every_format_gives_the_same_leads(folder, signal_mv, name):
    record = read(folder, name)
    assert record.lead_names == STANDARD_LEADS[: len(record.lead_names)]
    assert len(record.lead_names) == (6 if name == "kardia.json" else 12)
    assert record.sampling_rate == 500
    # half a step for what was stored, another for limb leads derived from it
    assert_allclose(record.signal_mv, signal_mv[: len(record.signal_mv)], atol=0.0051)
    assert record.flags == (("lead_derived:III+aVR+aVL+aVF",) if name in ("muse.xml", "ecg.zip") else ())


@pytest.mark.parametrize("name", KINDS)
def test_what_a_file_is_is_told_by_its_content_and_not_by_its_name(folder, tmp_path, name):
    (tmp_path / "0001").write_bytes((folder / name).read_bytes())
    assert formats.kind(folder / name) == formats.kind(tmp_path / "0001") == KINDS[name]
    assert formats.kind(tmp_path) is None


@pytest.mark.parametrize("name", VENDORS)
def test_vendor_files_say_whom_they_are_of(folder, name):
    record = read(folder, name)
    assert record.patient_id == vendor.PATIENT
    if name != "kardia.json":
        assert (record.age, record.sex) == (vendor.AGE, vendor.SEX)
    expected = "; ".join(vendor.STATEMENTS) if name in WITH_STATEMENTS else "normal" if name == "kardia.json" else None
    assert record.report == expected


@pytest.mark.parametrize("name", VENDORS)
def test_the_median_beat_comes_along_where_there_is_one_of_the_same_leads_and_rate(folder, signal_mv, name):
    found = read(folder, name).median_beat_mv
    if name not in WITH_BEATS:
        assert found is None
    else:
        assert_allclose(found, vendor.beat(signal_mv), atol=0.0051)


def test_derived_limb_leads_follow_from_the_two_that_are_stored(folder):
    signal = read(folder, "muse.xml").signal_mv
    for row, (of_i, of_ii) in enumerate(LIMB_LEADS.values()):
        assert_allclose(signal[row], of_i * signal[0] + of_ii * signal[1], atol=1e-6)


def test_cardiosoft_goes_the_same_way(tmp_path, signal_mv):
    (tmp_path / "a.xml").write_text(cardiosoft_xml(signal_mv), encoding="utf-8")
    record = formats.read(tmp_path / "a.xml")
    assert_allclose(record.signal_mv, signal_mv, atol=0.0051)
    assert (formats.kind(tmp_path / "a.xml"), record.lead_names) == ("cardiosoft", STANDARD_LEADS)
    with pytest.raises(ValueError, match=r"sampling_rate: the file says .*, which contradicts the given 123"):
        formats.read(tmp_path / "a.xml", sampling_rate=123)


def test_utf_16_and_a_comment_before_the_root_do_not_matter(tmp_path, signal_mv):
    text = vendor.sierra(vendor.counts()).decode().replace('encoding="UTF-8"', 'encoding="UTF-16"')
    (tmp_path / "a.xml").write_bytes(text.replace("?>", "?><!-- <AnnotatedECG> -->", 1).encode("utf-16"))
    assert_allclose(formats.read(tmp_path / "a.xml").signal_mv, signal_mv, atol=1e-6)
    (tmp_path / "b.xml").write_bytes("﻿<a:RestingECG>".encode())
    assert formats.kind(tmp_path / "b.xml") == "muse"


def test_of_several_groups_in_dicom_the_longest_rhythm_is_read(tmp_path, signal_mv):
    (tmp_path / "a.dcm").write_bytes(vendor.dicom(vendor.counts(), short_group_first=True))
    record = formats.read(tmp_path / "a.dcm")
    assert_allclose(record.signal_mv, signal_mv, atol=1e-6)
    assert_allclose(record.median_beat_mv, vendor.beat(signal_mv), atol=1e-6)
    (flag,) = record.flags
    assert flag.startswith("reader_warning:DICOM file has 1 additional multiplex group(s) that are not loaded")


def test_a_holter_shorter_than_its_header_says_is_flagged(tmp_path):
    (tmp_path / "a.ecg").write_bytes(vendor.ishne(vendor.counts())[: -24 * 500])  # 500 whole frames of 12 leads
    record = formats.read(tmp_path / "a.ecg")
    assert (record.signal_mv.shape, record.flags) == ((12, 2000), ("shorter_than_said:2000/2500",))


def test_a_rate_with_decimals_is_not_rounded(tmp_path):
    (tmp_path / "a.scp").write_bytes(vendor.scp_ecg(vendor.counts(), interval_us=1953))
    assert formats.read(tmp_path / "a.scp").sampling_rate == pytest.approx(512.0328, abs=1e-4)
    (tmp_path / "a.dcm").write_bytes(vendor.dicom(vendor.counts(), rate=257.5))
    assert formats.read(tmp_path / "a.dcm").sampling_rate == 257.5
    (tmp_path / "a.mwf").write_bytes(vendor.mfer(vendor.counts(), interval=(1, -4, 39)))
    assert formats.read(tmp_path / "a.mwf").sampling_rate == pytest.approx(256.41, abs=1e-2)


def test_age_follows_from_birth_and_recording_where_it_is_not_said(tmp_path):
    content = vendor.hl7_aecg(vendor.counts()).replace(b"20240601102030", b"20240301102030")
    (tmp_path / "a.xml").write_bytes(content)
    assert formats.read(tmp_path / "a.xml").age == vendor.AGE - 1  # three days before the birthday
    content = vendor.dicom(vendor.counts()).replace(b"056Y", b"999Y")
    (tmp_path / "a.dcm").write_bytes(content)
    assert formats.read(tmp_path / "a.dcm").age is None


def test_what_the_caller_says_may_not_contradict_the_file_and_names_channels_that_are_no_leads(tmp_path, signal_mv):
    path = tmp_path / "a.ecg"
    path.write_bytes(vendor.ishne(vendor.counts()))
    assert formats.read(path, sampling_rate=500, unit="uV", lead_names=list(STANDARD_LEADS)).sampling_rate == 500
    for option, value, message in (
        ("sampling_rate", 250, "sampling_rate: the file says 500.0, which contradicts the given 250"),
        ("unit", "mV", "unit: the file says uV, given mV"),
        ("lead_names", ["II", "I", *STANDARD_LEADS[2:]], "lead_names: the file says I, II,"),
    ):
        with pytest.raises(ValueError, match=message):
            formats.read(path, **{option: value})
    plain = vendor.counts()
    path.write_bytes(vendor.ishne(plain).replace(bytes([5, 0, 6, 0, 7, 0]), bytes([1, 0, 1, 0, 1, 0]), 1))
    path.write_bytes(path.read_bytes()[:8] + b"\0\0" + path.read_bytes()[10:])  # no checksum
    record = formats.read(path)
    assert record.lead_names == STANDARD_LEADS[3:]
    assert [flag.split(":")[0] for flag in record.flags] == ["not_a_lead"] * 3
    record = formats.read(path, lead_names=list(STANDARD_LEADS))
    assert_allclose(record.signal_mv, signal_mv, atol=1e-6)
    with pytest.raises(ValueError, match=r"lead_names: the file says aVR, .*, given I, II"):
        formats.read(path, lead_names=["I", "II"])


def test_channels_that_are_no_voltage_are_left_out_and_flagged(tmp_path, signal_mv):
    text = vendor.hl7_aecg(vendor.counts()).decode()
    head, _, tail = text.partition('<code code="MDC_ECG_LEAD_V6"/>')
    tail = tail.replace('unit="uV"', 'unit="mmHg"', 2)
    (tmp_path / "a.xml").write_text(f'{head}<code code="MDC_ECG_LEAD_V6"/>{tail}', encoding="utf-8")
    record = formats.read(tmp_path / "a.xml")
    assert record.lead_names == STANDARD_LEADS[:11]
    assert record.flags == ("not_voltage:V6",)
    assert_allclose(record.signal_mv, signal_mv[:11], atol=1e-6)


def test_a_part_in_seconds_is_cut_from_any_format(folder, signal_mv):
    record = read(folder, "holter.ecg", start_seconds=1.0, seconds=2.0)
    assert_allclose(record.signal_mv, signal_mv[:, 500:1500], atol=1e-6)


# ---- members


def test_a_row_of_a_hdf5_file_is_a_record(tmp_path, signal_mv):
    path = tmp_path / "exams.hdf5"
    vendor.hdf5_rows(path, vendor.counts())
    about = {"sampling_rate": 500, "unit": "mV", "lead_names": list(STANDARD_LEADS)}
    for row in (0, 2):
        record = formats.read(path, member=str(row), **about)
        assert_allclose(record.signal_mv, signal_mv * (row + 1), rtol=1e-6, atol=1e-6)
        assert record.record_id == f"exams/{row}"
    for member in (None, "3", "-1", "x"):
        with pytest.raises(ValueError, match="member: expected a row from 0 to 2, got") as caught:
            formats.read(path, member=member, **about)
        assert str(path) in str(caught.value)
    with pytest.raises(ValueError, match="sampling_rate: the file does not say it"):
        formats.read(path, member="0", unit="mV", lead_names=list(STANDARD_LEADS))


def test_an_entry_of_a_zip_is_a_record(folder, tmp_path, signal_mv):
    path = tmp_path / "export.zip"
    names = ["muse.xml", "ecg.dcm", "ecg.npz", "v73.mat", "ecg.csv"]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.write(folder / name, f"2024/{name}")
    for name in names:
        record = formats.read(path, member=f"2024/{name}")
        assert_allclose(record.signal_mv, signal_mv, atol=0.0051)
        assert (record.record_id, record.source) == (name.split(".")[0], f"{path}/2024/{name}")
    with pytest.raises(ValueError, match=r"member: expected an entry of this zip \(2024/muse.xml, .*\), got None"):
        formats.read(path)
    with pytest.raises(ValueError, match="member: expected None, as the file holds one record, got '0'"):
        formats.read(folder / "muse.xml", member="0")


def test_reading_by_row_and_by_entry_leaves_no_file_behind(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    read(folder, "ecg.zip")
    assert list(tmp_path.iterdir()) == []


def test_arrays_of_matlab_and_hdf5_say_no_more_than_they_hold(tmp_path):
    from scipy.io import savemat

    savemat(tmp_path / "a.mat", {"val": np.ones((12, 50)) * 0.5})
    for option in ("sampling_rate", "unit", "lead_names"):
        about = {"sampling_rate": 500, "unit": "mV", "lead_names": list(STANDARD_LEADS)}
        del about[option]
        with pytest.raises(ValueError, match=f"{option}: the file does not say"):
            formats.read(tmp_path / "a.mat", **about)
    about[option] = list(STANDARD_LEADS)
    assert_array_equal(formats.read(tmp_path / "a.mat", **about).signal_mv, np.float32(0.5) * np.ones((12, 50)))
