"""A part that cannot be used does not cost the rest: unknown channels, split groups, and tables of many programs."""

import copy
import re

import numpy as np
import pydicom
import pytest
from fixtures import write_vendor_files as vendor
from numpy.testing import assert_allclose
from scipy.io import savemat

from ecgdan_hf.data import formats
from ecgdan_hf.model.configuration_ecgdan import STANDARD_LEADS

ABOUT = {"sampling_rate": 500, "unit": "mV", "lead_names": list(STANDARD_LEADS)}


@pytest.fixture(scope="module")
def signal_mv():
    return vendor.millivolt(vendor.counts())


# ---- channels


def test_channels_that_are_no_lead_are_left_out_and_named(write_record, ecg):
    stem = write_record(signal_mv=ecg[:4], sig_name=["II", "RESP", "MCL1", "V1"])
    record = formats.read(stem)
    assert (record.lead_names, record.flags) == (("II", "V1"), ("not_a_lead:RESP", "not_a_lead:MCL1"))
    assert_allclose(record.signal_mv, ecg[[0, 3]], atol=6e-4)


def test_a_lead_under_two_names_is_taken_once(write_record, ecg):
    record = formats.read(write_record(signal_mv=ecg[:2], sig_name=["II", "MLII"]))
    assert (record.lead_names, record.flags) == (("II",), ("lead_twice:MLII",))


def test_names_that_are_no_leads_may_be_replaced_and_those_of_leads_may_not(write_record, ecg):
    stem = write_record(signal_mv=ecg[:2], sig_name=["ECG", "ECG2"])
    assert formats.read(stem, lead_names=["II", "V1"]).lead_names == ("II", "V1")
    with pytest.raises(ValueError, match="lead_names: expected 2 names, got 1"):
        formats.read(stem, lead_names=["II"])


def test_an_unknown_channel_of_muse_is_left_out(tmp_path, signal_mv):
    leads = ("I", "II", "EEG1", *STANDARD_LEADS[7:])
    (tmp_path / "a.xml").write_bytes(vendor.muse(vendor.counts(), leads=leads))
    record = formats.read(tmp_path / "a.xml")
    assert "not_a_lead:EEG1" in record.flags
    assert "V1" not in record.lead_names
    assert_allclose(record.signal_mv[record.lead_names.index("V2")], signal_mv[7], atol=1e-6)


PARTS = {
    "hl7_unknown": (lambda c: vendor.hl7_aecg(c).replace(b"LEAD_V6", b"LEAD_FOO"), "V6", "not_a_lead:FOO"),
    "hl7_longer": (
        lambda c: vendor.hl7_aecg(c).replace(b"</digits>", b" 7</digits>", 1),
        "I",
        "lead_of_other_rate:I",
    ),
    "mortara_two_rates": (
        lambda c: vendor.mortara(c).replace(b'NAME="V6" SAMPLE_FREQ="500"', b'NAME="V6" SAMPLE_FREQ="250"'),
        "V6",
        "lead_of_other_rate:V6",
    ),
    "dicom_unknown": (
        lambda c: vendor.dicom(c, leads=(*STANDARD_LEADS[:11], "Foo")),
        "V6",
        "not_a_lead:Lead Foo",
    ),
}


@pytest.mark.parametrize("name", PARTS)
def test_one_channel_that_cannot_be_used_is_left_out_in_any_format(tmp_path, signal_mv, name):
    write, absent, flag = PARTS[name]
    (tmp_path / "a").write_bytes(write(vendor.counts()))
    record = formats.read(tmp_path / "a")
    assert record.lead_names == tuple(lead for lead in STANDARD_LEADS if lead != absent)
    assert flag in record.flags
    kept = [row for row, lead in enumerate(STANDARD_LEADS) if lead != absent]
    assert_allclose(record.signal_mv, signal_mv[kept], atol=1e-6)


def test_a_thirteenth_channel_does_not_refuse_the_twelve(tmp_path, signal_mv):
    thirteen = np.vstack([vendor.counts(), vendor.counts()[:1]])
    (tmp_path / "a.xml").write_bytes(vendor.muse(thirteen, leads=(*STANDARD_LEADS, "Q1")))
    record = formats.read(tmp_path / "a.xml")
    assert (record.lead_names, record.flags) == (STANDARD_LEADS, ("not_a_lead:Q1",))


# ---- HL7 aECG


def aecg(tmp_path, groups, old="", new=""):
    """Reads an aECG with a series for each group of leads; in those behind the first, `old` is `new`."""
    text = vendor.hl7_aecg(vendor.counts()).decode()
    end = "</series></component>"
    before, whole, after = re.split(rf"(<component><series>.*{end})", text)
    lead = r'<component><sequence><code code="MDC_ECG_LEAD_(\w+)"/>.*?</sequence></component>'
    series = [re.sub(lead, lambda m: m.group() if m.group(1) in group else "", whole) for group in groups]  # noqa: B023
    series[1:] = [each.replace(old, new) if old else each for each in series[1:]]
    (tmp_path / "a.xml").write_text(before + "".join(series) + after, encoding="utf-8")
    return formats.read(tmp_path / "a.xml")


LIMB, CHEST = ([lead.upper() for lead in STANDARD_LEADS[part]] for part in (slice(6), slice(6, 12)))


@pytest.mark.parametrize("groups", [(LIMB, CHEST), tuple([lead] for lead in (*LIMB, *CHEST))])
def test_leads_split_over_series_are_joined(tmp_path, signal_mv, groups):
    record = aecg(tmp_path, groups)
    assert (record.lead_names, record.flags, record.report) == (STANDARD_LEADS, (), "Sinus rhythm; Normal ECG")
    assert_allclose(record.signal_mv, signal_mv, atol=1e-6)
    assert_allclose(record.median_beat_mv, vendor.beat(signal_mv), atol=1e-6)


def test_leads_split_over_sequence_sets_are_joined(tmp_path, signal_mv):
    text = vendor.hl7_aecg(vendor.counts()).decode()
    time = re.search(r"<component><sequence><code code=.TIME_ABSOLUTE.*?</sequence></component>", text).group()
    chest = text.index('<component><sequence><code code="MDC_ECG_LEAD_V1"')
    between = f"</sequenceSet></component><component><sequenceSet>{time}"
    (tmp_path / "a.xml").write_text(text[:chest] + between + text[chest:], encoding="utf-8")
    record = formats.read(tmp_path / "a.xml")
    assert (record.lead_names, record.flags) == (STANDARD_LEADS, ())
    assert_allclose(record.signal_mv, signal_mv, atol=1e-6)


@pytest.mark.parametrize(
    ("old", "new"),
    [('<head value="0"/>', '<head value="5"/>'), ('value="0.002"', 'value="0.004"'), ("</digits>", " 7</digits>")],
    ids=["start", "rate", "length"],
)
def test_series_of_another_time_are_named_and_not_joined(tmp_path, signal_mv, old, new):
    record = aecg(tmp_path, (LIMB + CHEST[:2], CHEST[2:]), old, new)
    assert record.lead_names == STANDARD_LEADS[:8]
    assert record.flags == ("series_left_out:V3+V4+V5+V6",)
    assert_allclose(record.signal_mv, signal_mv[:8], atol=1e-6)


# ---- DICOM


def dicom(tmp_path, change):
    dataset = pydicom.dcmread(pydicom.filebase.DicomBytesIO(vendor.dicom(vendor.counts())))
    change(dataset)
    dataset.save_as(tmp_path / "a.dcm")
    return formats.read(tmp_path / "a.dcm")


def split(dataset):
    whole, beat = dataset.WaveformSequence
    halves = []
    samples = np.frombuffer(whole.WaveformData, "<i2").reshape(-1, 12)
    for first in (0, 6):
        half = copy.deepcopy(whole)
        half.NumberOfWaveformChannels = 6
        half.ChannelDefinitionSequence = whole.ChannelDefinitionSequence[first : first + 6]
        half.WaveformData = samples[:, first : first + 6].tobytes()
        halves.append(half)
    dataset.WaveformSequence = [*halves, beat]


def test_leads_split_over_two_groups_are_joined(tmp_path, signal_mv):
    record = dicom(tmp_path, split)
    assert record.lead_names == STANDARD_LEADS
    assert_allclose(record.signal_mv, signal_mv, atol=1e-6)
    assert_allclose(record.median_beat_mv, vendor.beat(signal_mv), atol=1e-6)


def test_groups_recorded_one_after_the_other_are_not_joined(tmp_path):
    def later(dataset):
        split(dataset)
        dataset.WaveformSequence[1].MultiplexGroupTimeOffset = 2500.0

    record = dicom(tmp_path, later)
    assert record.lead_names == STANDARD_LEADS[:6]
    assert "additional multiplex group" in record.flags[0]


def test_a_padding_value_of_zero_leaves_true_zeros(tmp_path, signal_mv):
    def pad(dataset):
        dataset.WaveformSequence[0].add_new("WaveformPaddingValue", "OW", b"\0\0")

    record = dicom(tmp_path, pad)
    assert not np.isnan(record.signal_mv).any()
    assert_allclose(record.signal_mv, signal_mv, atol=1e-6)


@pytest.mark.parametrize("syntax", [pydicom.uid.ImplicitVRLittleEndian, pydicom.uid.ExplicitVRLittleEndian])
def test_dicom_without_its_preamble_is_read(tmp_path, signal_mv, syntax):
    content = vendor.dicom(vendor.counts(), syntax=syntax)
    dataset = pydicom.dcmread(pydicom.filebase.DicomBytesIO(content))
    buffer = pydicom.filebase.DicomBytesIO()
    bare = pydicom.Dataset()
    bare.update(dataset)
    pydicom.dcmwrite(buffer, bare, implicit_vr=syntax == pydicom.uid.ImplicitVRLittleEndian, little_endian=True)
    (tmp_path / "a").write_bytes(buffer.getvalue())
    assert buffer.getvalue()[128:132] != b"DICM"
    assert formats.kind(tmp_path / "a") == "dicom"
    assert_allclose(formats.read(tmp_path / "a").signal_mv, signal_mv, atol=1e-6)


# ---- arrays


def test_a_structure_of_matlab_is_read_and_a_batch_of_one_too(tmp_path, signal_mv):
    savemat(tmp_path / "a.mat", {"ECG": {"sex": "Female", "age": 61, "data": signal_mv}})
    assert_allclose(formats.read(tmp_path / "a.mat", **ABOUT).signal_mv, signal_mv, rtol=1e-6)
    np.save(tmp_path / "a.npy", signal_mv[None])
    assert_allclose(formats.read(tmp_path / "a.npy", **ABOUT).signal_mv, signal_mv, rtol=1e-6)


def test_what_is_known_but_not_read_is_named_with_what_to_do(tmp_path):
    savemat(tmp_path / "v4.mat", {"signal": np.ones((2, 9))}, format="4")
    (tmp_path / "a.bdf").write_bytes(b"\xffBIOSEMI" + b" " * 300)
    for name, message in (("v4.mat", "MATLAB of version 4; save it with"), ("a.bdf", "BDF of 24 bits; export it")):
        with pytest.raises(ValueError, match=message):
            formats.read(tmp_path / name)


# ---- tables

HEAD = "# sampling_rate: 500\n# unit: mV\n"


def rows(signal, separator=",", decimal=".", index=False):
    lines = [separator.join(f"{value:.4f}".replace(".", decimal) for value in row) for row in signal.T]
    return "\n".join(f"{i}{separator}{line}" if index else line for i, line in enumerate(lines))


TABLES = {
    "a byte order mark": lambda s: ("\ufeff" + HEAD + "I,II\n" + rows(s)).encode(),
    "UTF-16": lambda s: (HEAD + "I,II\n" + rows(s)).encode("utf-16"),
    "semicolon and decimal comma": lambda s: (HEAD + "I;II\n" + rows(s, ";", ",")).encode(),
    "tab and decimal comma": lambda s: (HEAD + "I\tII\n" + rows(s, "\t", ",")).encode(),
    "an index column": lambda s: (HEAD + ",I,II\n" + rows(s, index=True)).encode(),
    "units in the names": lambda s: ("# sampling_rate: 500\nI (mV),II (mV)\n" + rows(s)).encode(),
    "microvolt in the names": lambda s: ("# sampling_rate: 500 Hz\nI [uV],II [uV]\n" + rows(s * 1000)).encode(),
    "microvolt in Latin-1": lambda s: ("# sampling_rate: 500\n# unit: \xb5V\nI,II\n" + rows(s * 1000)).encode(
        "latin-1"
    ),
    "German names": lambda s: (HEAD + "Ableitung I;Ableitung II\n" + rows(s, ";", ",")).encode("latin-1"),
    "metadata without a mark": lambda s: (
        "Patient;Muster\nsampling_rate;500\nunit;mV\n\nI;II\n" + rows(s, ";", ",")
    ).encode(),
    "empty columns behind": lambda s: (HEAD + "I,II,,\n" + rows(s).replace("\n", ",,\n") + ",,").encode(),
    "quotes": lambda s: (HEAD + '"I","II"\n' + rows(s)).encode(),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_read_as_programs_write_it(tmp_path, ecg, name):
    path = tmp_path / "a.csv"
    path.write_bytes(TABLES[name](ecg[:2]))
    assert formats.kind(path) == "csv"
    record = formats.read(path)
    assert (record.lead_names, record.sampling_rate) == (("I", "II"), 500)
    assert_allclose(record.signal_mv, ecg[:2], atol=6e-5)


def test_a_time_column_may_have_its_unit_in_its_name(tmp_path, ecg):
    for title, step in (("Time (s)", 0.002), ("Zeit (ms)", 2)):
        table = np.vstack([np.arange(5000) * step, ecg[:2]])
        (tmp_path / "a.csv").write_text(f"{title},I (mV),II (mV)\n" + rows(table), encoding="utf-8")
        record = formats.read(tmp_path / "a.csv")
        assert (record.lead_names, record.sampling_rate) == (("I", "II"), 500)


def test_a_table_without_names_is_read_with_names_given(tmp_path, ecg):
    (tmp_path / "a.csv").write_text(rows(ecg[:2]), encoding="utf-8")
    record = formats.read(tmp_path / "a.csv", sampling_rate=500, unit="mV", lead_names=["I", "II"])
    assert_allclose(record.signal_mv, ecg[:2], atol=6e-5)
    with pytest.raises(ValueError, match="expected a first row with lead names, got numbers; give 2 lead_names"):
        formats.read(tmp_path / "a.csv", sampling_rate=500, unit="mV")


def test_one_column_of_another_name_is_read_with_the_name_given(tmp_path, ecg):
    (tmp_path / "a.csv").write_text(f"{HEAD}ECG\n" + rows(ecg[1:2]), encoding="utf-8")
    record = formats.read(tmp_path / "a.csv", lead_names=["II"])
    assert record.lead_names == ("II",)
    assert_allclose(record.signal_mv, ecg[1:2], atol=6e-5)


@pytest.mark.parametrize("text", ["a,b\n1,2\n", "name,age\nA,3\n", "record_id,event,time\n1,0,2.5\n", "Dear I,\n"])
def test_tables_of_something_else_are_no_ecgs(tmp_path, text):
    (tmp_path / "a.csv").write_text(text, encoding="utf-8")
    assert formats.kind(tmp_path / "a.csv") is None


def test_a_gain_that_is_no_number_is_one_line_that_names_the_file(write_record):
    header = write_record().with_suffix(".hea")
    text = header.read_text(encoding="utf-8")
    header.write_text(text.replace(" 1000.0(0)", " 1000.0.0(0)", 1), encoding="utf-8")
    with pytest.raises(ValueError, match=r"a\.hea: .*1000\.0\.0"):
        formats.read(header)
