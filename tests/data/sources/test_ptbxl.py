import json
import shutil

import pandas as pd
import pytest
from fixtures.write_sources import write_ptbxl_plus

from ecgdan_hf.data import formats
from ecgdan_hf.data.sources import ptbxl


def test_a_row_is_what_the_official_tables_say(ptbxl_folder):
    table = ptbxl.read_ptbxl(ptbxl_folder)
    assert table["record_id"].tolist() == ["1", "2", "7", "9"]
    assert table["patient_id"].tolist() == ["15709", "13243", "13243", "11111"]
    assert table["sex"].tolist() == ["female", "male", "male", "female"]
    assert table["fold"].tolist() == [3, 2, 2, 9]
    assert table["report"].tolist()[:2] == ["sinusrhythmus", ""]
    assert json.loads(table["scp_codes"][1]) == {"IMI": 35.0, "NDT": 0.0}


def test_age_300_is_over_89_and_an_empty_age_is_missing(ptbxl_folder):
    age = ptbxl.read_ptbxl(ptbxl_folder)["age"]
    assert age[0] == 56
    assert age[1] == 95
    assert age.isna().tolist() == [False, False, True, False]


@pytest.mark.parametrize(
    ("level", "names", "labels"),
    [
        ("superclass", ["NORM", "MI", "STTC", "CD", "HYP"], [["NORM"], ["MI", "STTC"], ["CD", "HYP"], []]),
        ("subclass", ["STTC", "NORM", "IMI", "LVH", "CLBBB"], [["NORM"], ["STTC", "IMI"], ["LVH", "CLBBB"], []]),
        (
            "statement",
            ["NDT", "NORM", "IMI", "LVH", "CLBBB", "SR"],
            [["NORM", "SR"], ["NDT", "IMI"], ["LVH", "CLBBB", "SR"], ["SR"]],
        ),
    ],
)
def test_labels_at_three_levels_count_at_any_likelihood(ptbxl_folder, level, names, labels):
    table = ptbxl.read_ptbxl(ptbxl_folder, label_level=level)
    assert table.attrs["label_names"] == names
    assert table["labels"].tolist() == labels


@pytest.mark.parametrize("rate", [500, 100])
def test_both_published_rates_and_both_storage_formats_are_read(ptbxl_folder, rate):
    table = ptbxl.read_ptbxl(ptbxl_folder, sampling_rate=rate)
    for file in table["file"]:
        record = formats.read(file)
        assert (record.sampling_rate, record.signal_mv.shape) == (rate, (12, 10 * rate))


def test_records_that_version_1_0_3_removed_are_left_out_and_counted_in_one_line(ptbxl_folder, caplog):
    path = ptbxl_folder / "ptbxl_database.csv"
    before = ptbxl.read_ptbxl(ptbxl_folder)
    assert not caplog.records  # version 1.0.3 has none of them
    first, *rows = path.read_text(encoding="utf-8").splitlines()
    copies = [f"{ecg_id},{rows[0].split(',', 1)[1]}" for ecg_id in sorted(ptbxl.DUPLICATES)[:3]]
    path.write_text("\n".join([first, *copies, *rows]) + "\n", encoding="utf-8")
    after = ptbxl.read_ptbxl(ptbxl_folder)
    pd.testing.assert_frame_equal(after, before)
    assert after.attrs == before.attrs
    said = "3 records that PTB-XL 1.0.3 removed as duplicates are left out"
    assert [record.message for record in caplog.records] == [f"{path}: {said}"]


def test_all_that_version_1_0_3_removed_is_known():
    assert len(ptbxl.DUPLICATES) == 21837 - 21799


def test_what_is_missing_from_the_layout_is_named(ptbxl_folder):
    with pytest.raises(ValueError, match="PTB-XL is published at 500 and 100 Hz, got 250"):
        ptbxl.read_ptbxl(ptbxl_folder, sampling_rate=250)
    with pytest.raises(ValueError, match="label_level: expected one of superclass, subclass, statement, got 'rhythm'"):
        ptbxl.read_ptbxl(ptbxl_folder, label_level="rhythm")
    shutil.rmtree(ptbxl_folder / "records100")
    with pytest.raises(FileNotFoundError, match="records100: no such folder; it holds the 100 Hz signals"):
        ptbxl.read_ptbxl(ptbxl_folder, sampling_rate=100)
    assert len(ptbxl.read_ptbxl(ptbxl_folder)) == 4
    for name in ("ptbxl_database.csv", "scp_statements.csv"):
        (ptbxl_folder / name).rename(ptbxl_folder / "away")
        with pytest.raises(FileNotFoundError, match=f"{name}: no such file"):
            ptbxl.read_ptbxl(ptbxl_folder)
        (ptbxl_folder / "away").rename(ptbxl_folder / name)


def test_a_table_that_is_not_that_of_ptb_xl_is_refused(ptbxl_folder):
    path = ptbxl_folder / "ptbxl_database.csv"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("strat_fold", "fold"), encoding="utf-8")
    with pytest.raises(ValueError, match="expected the columns of PTB-XL, missing strat_fold"):
        ptbxl.read_ptbxl(ptbxl_folder)
    path.write_text(text + text.splitlines()[1] + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match="ecg_id: expected each record once, got 1 more than once"):
        ptbxl.read_ptbxl(ptbxl_folder)
    path.write_text(text.replace("{'SR': 0.0}", "SR"), encoding="utf-8")
    with pytest.raises(ValueError, match=r"scp_codes: expected {code: likelihood}, got 'SR'"):
        ptbxl.read_ptbxl(ptbxl_folder)


@pytest.mark.parametrize("place", [".", "ptb-xl-plus", "../ptb-xl-plus"])
def test_median_beats_of_ptb_xl_plus_are_found_inside_and_beside(ptbxl_folder, place):
    assert "median_file" not in ptbxl.read_ptbxl(ptbxl_folder)
    plus = write_ptbxl_plus(ptbxl_folder / place, [1, 9])
    found = ptbxl.read_ptbxl(ptbxl_folder).set_index("record_id")["median_file"]
    assert found["9"] == str((plus / "median_beats/12sl/00000/00009_medians").resolve())
    assert found.isna().tolist() == [False, True, True, False]


def test_the_published_counts_are_met_on_real_records(shared, caplog):
    table = ptbxl.read_ptbxl(shared / "data/ptb-xl")
    assert (len(table), table["patient_id"].nunique()) == (2664 - 12, 2578)
    assert "12 records that PTB-XL 1.0.3 removed as duplicates are left out" in caplog.text
    counts = table["labels"].explode().value_counts()
    assert counts.to_dict() == {"NORM": 1279, "STTC": 616, "MI": 584, "CD": 531, "HYP": 306}
    assert len(ptbxl.read_ptbxl(shared / "data/ptb-xl", label_level="statement").attrs["label_names"]) == 71
    assert (table["fold"] == 9).sum() == 330
