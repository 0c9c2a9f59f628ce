import pandas as pd
import pytest

from ecgdan_hf.cli.main import app
from ecgdan_hf.data.sources import csv_table as csv_files
from ecgdan_hf.training.arguments.command import run_safely

TABLE = """file,patient_id,age,sex,fold,labels,event,time,bmi
ecg/001,P1,61.5,male,1,AFIB; LVH,1,2.5,25
ecg/002,P2,,female,2,,0,10,31
"""
OUTCOMES = "record_id,event,time\na,1,0.5\nb,0,3\n"


@pytest.fixture
def write(tmp_path):
    def write_text(text, name="table.csv"):
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    return write_text


def make_table(*ids):
    return pd.DataFrame({"record_id": ids, "patient_id": [f"P{i}" for i in range(len(ids))], "file": ids})


def test_a_table_of_files_is_read_from_its_folder_or_its_path(write, tmp_path):
    path = write(TABLE)
    table = csv_files.read_csv_table(tmp_path)
    pd.testing.assert_frame_equal(table, csv_files.read_csv_table(path))
    assert table["file"].tolist() == [str(tmp_path / "ecg/001"), str(tmp_path / "ecg/002")]
    assert table["record_id"].tolist() == ["ecg/001", "ecg/002"]
    assert table["labels"].tolist() == [["AFIB", "LVH"], []]
    assert table.attrs["label_names"] == ["AFIB", "LVH"]
    assert table["age"].isna().tolist() == [False, True]
    assert table[["event", "time", "bmi", "fold"]].to_numpy().tolist() == [[1, 2.5, 25, 1], [0, 10, 31, 2]]


def test_ids_that_look_like_numbers_keep_their_zeros(write):
    table = csv_files.read_csv_table(write("record_id,patient_id,file\n007,010,a\n008,011,b\n"))
    assert table["record_id"].tolist() == ["007", "008"]
    assert table["patient_id"].tolist() == ["010", "011"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("file,patient_id", "path,patient_id", "expected a column file, got path"),
        ("file,patient_id", "file,subject", "expected a column patient_id"),
        ("ecg/002", "ecg/001", "record_id: expected each record once, got more than one of ecg/001"),
        ("ecg/002", "", "file: expected a value in each row, got none in line 3"),
        ("P2", "", "patient_id: expected a value in each row, got none in line 3"),
        ("61.5", "old", "age of record ecg/001: expected years from 0 to 130, or nothing, got old"),
        ("61.5", "300", "age of record ecg/001: expected years from 0 to 130, or nothing, got 300"),
        ("female", "X", "sex of record ecg/002: expected male or female, got X"),
        (",2,,0", ",test,,0", "fold of record ecg/002: expected a whole number, got test"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_with_the_record_named(write, old, new, message):
    path = write(TABLE.replace(old, new, 1))
    with pytest.raises(ValueError, match=message) as caught:
        csv_files.read_csv_table(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("a,1,0.5", "a,1,-0.5", "time of record a: expected years since the ECG, a number above zero, got -0.5"),
        ("a,1,0.5", "a,1,0", "time of record a: expected years since the ECG, a number above zero, got 0"),
        ("a,1,0.5", "a,1,soon", "time of record a: expected years since the ECG, a number above zero, got soon"),
        ("a,1,0.5", "a,1,", "time of record a: expected years since the ECG, a number above zero, got nan"),
        ("a,1,0.5", "a,1,inf", "time of record a: expected years since the ECG, a number above zero, got inf"),
        ("a,1,0.5", "a,1.5,0.5", r"event of record a: expected 1 \(happened\), 0 \(censored\) or 2, 3, .*, got 1.5"),
        ("a,1,0.5", "a,yes,0.5", r"event of record a: expected 1 \(happened\), 0 \(censored\) or .*, got yes"),
        ("a,1,0.5", "a,,0.5", r"event of record a: expected 1 \(happened\), 0 \(censored\) or .*, got nan"),
        ("a,1,0.5", "a,0,0.5", "expected at least one event, got none in 2 rows"),
        ("b,0,3", "a,0,3", "record_id: expected each record once, got more than one of a"),
        ("b,0,3", ",0,3", "record_id: expected a value in each row, got none in line 3"),
        ("record_id", "id", "expected a column record_id, got id, event, time"),
        ("time", "days", "expected a column time, got record_id, event, days"),
        ("a,1,0.5\nb,0,3\n", "", "expected rows below the column names, got none"),
        ("b,0,3", "b,0,3,4", "not a readable CSV"),
    ],
)
def test_outcomes_that_cannot_be_used_are_refused_with_the_record_named(write, old, new, message):
    path = write(OUTCOMES.replace(old, new), "outcomes.csv")
    with pytest.raises(ValueError, match=message) as caught:
        csv_files.read_outcomes(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_outcomes_say_how_many_rows_are_wrong(write):
    with pytest.raises(ValueError, match=r"got -1 \(and 1 more\)"):
        csv_files.read_outcomes(write("record_id,event,time\na,1,-1\nb,0,-2\nc,1,1\n"))


def test_events_may_be_written_as_true_and_false(write):
    outcomes = csv_files.read_outcomes(write("record_id,event,time\na,True,1\nb,False,2\n"))
    assert outcomes["event"].tolist() == [1, 0]


def test_a_missing_file_is_named(tmp_path):
    for read in (csv_files.read_csv_table, csv_files.read_outcomes):
        with pytest.raises(FileNotFoundError, match=r"absent\.csv: no such file"):
            read(tmp_path / "absent.csv")
    with pytest.raises(FileNotFoundError, match=r"table\.csv: no such file"):
        csv_files.read_csv_table(tmp_path)


def test_outcomes_are_joined_by_record_in_table_order(write):
    outcomes = csv_files.read_outcomes(write(OUTCOMES))
    joined = csv_files.join_outcomes(make_table("b", "c", "a"), outcomes)
    assert joined["record_id"].tolist() == ["b", "a"]
    assert joined["time"].tolist() == [3, 0.5]
    assert joined["patient_id"].tolist() == ["P0", "P2"]
    assert joined.attrs["without_outcome"] == 1


def test_outcomes_may_say_whose_record_it_is(write):
    outcomes = csv_files.read_outcomes(write("record_id,patient_id,event,time\na,X,1,1\nb,X,0,1\n"))
    assert csv_files.join_outcomes(make_table("a", "b"), outcomes)["patient_id"].tolist() == ["X", "X"]


def test_a_sex_in_outcomes_is_read_in_the_words_of_the_package(write):
    outcomes = csv_files.read_outcomes(write("record_id,sex,event,time\na,m,1,1\nb,W,0,1\nc,,0,1\n"))
    assert csv_files.join_outcomes(make_table("a", "b", "c"), outcomes)["sex"].tolist() == ["male", "female", None]
    odd = csv_files.read_outcomes(write("record_id,sex,event,time\na,x,1,1\n"))
    with pytest.raises(ValueError, match="sex of record a: expected male or female, got x"):
        csv_files.join_outcomes(make_table("a"), odd)


def test_unmatched_and_duplicated_ids_are_refused(write):
    outcomes = csv_files.read_outcomes(write(OUTCOMES))
    with pytest.raises(ValueError, match=r"outcomes\.csv: record_id: 1 of 2 ids are not in the data: b"):
        csv_files.join_outcomes(make_table("a", "c"), outcomes, "outcomes.csv")
    with pytest.raises(ValueError, match="table: record_id: expected each record once, got more than one of a"):
        csv_files.join_outcomes(make_table("a", "a", "b"), outcomes)
    with pytest.raises(ValueError, match="outcomes: record_id: expected each record once"):
        csv_files.join_outcomes(make_table("a", "b"), pd.concat([outcomes, outcomes]))


def test_a_written_table_reads_back_the_same_and_leaves_nothing_else(write, tmp_path):
    table = csv_files.read_csv_table(write(TABLE))
    csv_files.write_table(table.assign(file=["ecg/001", "ecg/002"]), tmp_path / "out/table.csv")
    again = csv_files.read_csv_table(tmp_path / "out")
    pd.testing.assert_frame_equal(again.drop(columns="file"), table.drop(columns="file"))
    (tmp_path / "out/folder").mkdir()
    with pytest.raises(OSError):
        csv_files.write_table(table, tmp_path / "out/folder")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["folder", "table.csv"]


def test_a_death_that_comes_first_competes_with_the_event_and_a_later_one_changes_nothing():
    outcomes = pd.DataFrame({"record_id": list("abcde"), "event": [0, 1, 1, 0, 0], "time": [4.0, 3.0, 3.0, 2.0, 5.0]})
    deaths = pd.DataFrame({"record_id": list("abcdx"), "event": [1, 1, 1, 1, 1], "time": [4.0, 3.0, 2.0, 6.0, 1.0]})
    found = csv_files.with_deaths(outcomes, deaths)
    assert found["event"].tolist() == [2, 1, 2, 0, 0]  # on the same day the event came first, and censoring did not
    assert found["time"].tolist() == [4.0, 3.0, 2.0, 2.0, 5.0]
    with pytest.raises(ValueError, match="deaths: the outcomes have competing events already, code 2"):
        csv_files.with_deaths(found, deaths)
    with pytest.raises(ValueError, match="expected deaths during the follow-up of 5 records, got none"):
        csv_files.with_deaths(outcomes, deaths.assign(event=0))


def test_the_verb_writes_deaths_of_the_recordings_own_table_as_a_competing_event(tmp_path, capsys):
    (tmp_path / "own").mkdir()
    rows = "a,1,a.hea,1,2.0\nb,2,b.hea,0,4.0\nc,3,c.hea,,\n"  # as CODE-15 has death
    (tmp_path / "own" / "table.csv").write_text("record_id,patient_id,file,event,time\n" + rows)
    (tmp_path / "hf.csv").write_text("record_id,event,time\na,0,3\nb,1,1\nc,0,2\n")
    arguments = ["data", "outcomes", str(tmp_path / "hf.csv"), "--out", str(tmp_path / "out.csv")]
    arguments += ["--data", "csv", "--data-dir", str(tmp_path / "own"), "--deaths", "source"]
    assert run_safely(lambda: app(arguments, standalone_mode=False)) == 0
    assert "3 rows, 1 events, 1 with a competing event" in capsys.readouterr().out
    written = csv_files.read_outcomes(tmp_path / "out.csv")
    assert written[["record_id", "event", "time"]].to_numpy().tolist() == [["a", 2, 2.0], ["b", 1, 1.0], ["c", 0, 2.0]]
