import numpy as np
import pytest
from fixtures.write_sources import mitbih_signal, write_mitbih

from ecgdan_hf import EcgDanConfig, EcgDanFeatureExtractor
from ecgdan_hf.data import formats
from ecgdan_hf.data.loading import load
from ecgdan_hf.data.prepared.record_file import RecordFile
from ecgdan_hf.data.sources import mitbih

RHYTHM = EcgDanConfig(trunk="light", input_kind="rhythm", lead_names=["II", "V1"]).signal_contract


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Read it, do not write in it."""
    return write_mitbih(tmp_path_factory.mktemp("mitbih"))


def test_records_are_cut_into_segments_that_do_not_overlap(folder):
    table = mitbih.read_mitbih(folder)
    assert table["record_id"].tolist()[:4] == ["100-0000", "100-0010", "100-0020", "102-0000"]
    assert len(table) == 4 * 3  # 35 s: the last five seconds are dropped
    for name in ("100", "102"):
        parts = [file.read() for file in RecordFile.of_table(table[table["record_id"].str.startswith(name)])]
        assert [part.signal_mv.shape for part in parts] == [(2, 3600)] * 3
        joined = np.concatenate([part.signal_mv for part in parts], axis=1)
        np.testing.assert_allclose(joined, mitbih_signal(name, 30.0), atol=0.003)


def test_a_segment_is_labelled_by_its_own_beats(folder):
    table = mitbih.read_mitbih(folder).set_index("record_id")
    assert table.attrs["label_names"][:4] == ["NORMAL", "LBBB", "RBBB", "APC"]
    assert table["labels"]["100-0000"] == ["NORMAL"]
    assert table["labels"]["100-0010"] == ["NORMAL", "APC", "PVC"]
    assert table.loc["100-0010", ["num_beats", "beats_NORMAL", "beats_APC", "beats_PVC"]].tolist() == [13, 10, 2, 1]
    assert table["num_beats"]["100-0020"] == 10  # neither the beats behind the last segment nor the rhythm mark


def test_records_201_and_202_are_one_patient_and_paced_records_are_marked(folder):
    table = mitbih.read_mitbih(folder)
    patients = table.groupby(table["record_id"].str[:3])["patient_id"].unique().map(list)
    assert patients.to_dict() == {"100": ["100"], "102": ["102"], "201": ["201"], "202": ["201"]}
    assert sorted(table.loc[table["paced"] == 1, "record_id"].str[:3].unique()) == ["102"]
    subjects = table.drop_duplicates("patient_id").set_index("patient_id")
    assert subjects.loc["102", ["age", "sex"]].tolist() == [80, "female"]


def test_modified_leads_come_to_their_place_by_name(folder, extractor, tmp_path):
    dataset = load("mit-bih", folder, feature_extractor=extractor, cache_dir=tmp_path / "cache", num_proc=1)
    masks = dict(zip(dataset["record_id"], dataset["lead_mask"], strict=True))
    place = {lead: extractor.lead_names.index(lead) for lead in ("II", "V1", "V5")}
    assert np.flatnonzero(masks["100-0000"]).tolist() == [place["II"], place["V1"]]
    assert np.flatnonzero(masks["102-0000"]).tolist() == [place["II"], place["V5"]]  # stored V5 first


def test_another_length_gives_other_segments_with_the_same_beats(folder):
    fives, tens = mitbih.read_mitbih(folder, segment_seconds=5.0), mitbih.read_mitbih(folder)
    assert len(fives) == 4 * 7
    beats = fives[fives["start_seconds"] < 30].groupby("patient_id")["num_beats"].sum()
    assert beats.equals(tens.groupby("patient_id")["num_beats"].sum())
    with pytest.raises(ValueError, match="segment_seconds: expected more than 0 and at most the 35 s of"):
        mitbih.read_mitbih(folder, segment_seconds=60)
    with pytest.raises(ValueError, match="segment_seconds: expected more than 0"):
        mitbih.read_mitbih(folder, segment_seconds=-1)


def test_what_is_missing_or_damaged_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"expected MIT-BIH records such as 100\.atr and 100\.hea, found none"):
        mitbih.read_mitbih(tmp_path)
    write_mitbih(tmp_path)
    (tmp_path / "100.hea").write_text("", encoding="utf-8")
    with pytest.raises(ValueError, match="100: damaged header or annotations"):
        mitbih.read_mitbih(tmp_path)
    (tmp_path / "100.hea").unlink()
    with pytest.raises(FileNotFoundError, match=r"100\.hea: no such file; it belongs to 100\.atr"):
        mitbih.read_mitbih(tmp_path)


@pytest.mark.parametrize("fmt", ["16", "212", "24", "32", "516"])
@pytest.mark.parametrize(("start", "length"), [(0.0, 2.5), (3.3, 1.0), (9.0, None), (7.5, 2.5)])
def test_a_part_of_a_record_is_that_part_of_the_whole(write_record, fmt, start, length):
    stem = write_record(fmt=fmt)
    whole = formats.read(stem).signal_mv
    stop = 5000 if length is None else round((start + length) * 500)
    part = formats.read(stem, start_seconds=start, seconds=length)
    np.testing.assert_array_equal(part.signal_mv, whole[:, round(start * 500) : stop])


def test_a_part_is_read_without_the_rest(write_record):
    """What is damaged elsewhere does not matter to it."""
    stem = write_record(fmt="16")
    header = stem.with_suffix(".hea")
    header.write_text(
        header.read_text(encoding="utf-8").replace(" 5000\n", "\n", 1),
        encoding="utf-8",
    )  # a length that only the data know
    part = formats.read(stem, start_seconds=2, seconds=1)
    np.testing.assert_array_equal(part.signal_mv, formats.read(stem).signal_mv[:, 1000:1500])


@pytest.mark.parametrize(("start", "length"), [(-1.0, 2.0), (10.0, None), (8.0, 2.1), (1.0, 0.0)])
def test_a_part_that_is_not_in_the_record_is_refused(write_record, start, length):
    with pytest.raises(ValueError, match=r"start_seconds: expected a part of 10 s, got from"):
        formats.read(write_record(), start_seconds=start, seconds=length)


def test_beats_of_the_real_records_are_those_published(shared, mitbih_table):
    table = mitbih.read_mitbih(shared / "data/mit-bih", segment_seconds=1805.0)
    assert (len(table), table["patient_id"].nunique()) == (22, 22)
    record = table.set_index("record_id").loc["209-0000"]
    assert (record["beats_APC"], record["beats_PVC"]) == (383, 1)
    tens = mitbih_table
    assert len(tens) == 22 * 180
    assert tens["labels"].explode().value_counts()["APC"] == 324
    part = RecordFile.of_table(tens.iloc[[200]])[0].read()
    assert (part.signal_mv.shape, part.sampling_rate) == ((2, 3600), 360)


def test_beats_of_a_segment_are_named_with_their_time_in_it(folder):
    row = mitbih.read_mitbih(folder).set_index("record_id").loc["100-0010"]
    assert len(row["beat_seconds"]) == len(row["beat_kinds"]) == row["num_beats"]
    assert row["beat_kinds"].count("APC") == row["beats_APC"]
    assert row["beat_seconds"] == sorted(row["beat_seconds"])
    assert min(row["beat_seconds"]) >= 0 and max(row["beat_seconds"]) < 10
    loaded = load("mit-bih", folder, feature_extractor=EcgDanFeatureExtractor(**RHYTHM))[1]
    assert loaded["beat_seconds"] == row["beat_seconds"] and loaded["beat_kinds"] == row["beat_kinds"]
