"""Tables as hospitals have them give what the plain CSV gives, or are refused in words."""

from datetime import date

import pandas as pd
import pytest
from fixtures.write_workbook import Id, workbook

from ecgdan_hf.data.sources.csv_table import join_outcomes, read_csv_table, read_outcomes, with_deaths
from ecgdan_hf.data.sources.hospital_tables import parse_mapping, read_hospital_table

PLAIN = "record_id,event,time\n00001,1,0.5\n00002,0,3.25\n"


@pytest.fixture
def write(tmp_path):
    def write_bytes(content, name="outcomes.csv"):
        data = content if isinstance(content, bytes) else content.encode()
        (tmp_path / name).write_bytes(data)
        return tmp_path / name

    return write_bytes


@pytest.fixture
def plain(write):
    return read_outcomes(write(PLAIN, "plain.csv"))


FORMS = {
    "semicolons, decimal commas": "record_id;event;time\n00001;1;0,5\n00002;0;3,25\n",
    "tabs": PLAIN.replace(",", "\t"),
    "tabs, decimal commas": PLAIN.replace(",", "\t").replace(".", ","),
    "quoted decimal commas": 'record_id,event,time\n00001,1,"0,5"\n00002,0,"3,25"\n',
    "byte order mark": "\ufeff" + PLAIN,
    "UTF-16": PLAIN.encode("utf-16"),
    "lines of Windows": PLAIN.replace("\n", "\r\n"),
    "blank lines and columns behind": "record_id;event;time;;\n00001;1;0,5;;\n;;;;\n00002;0;3,25;;\n",
    "blanks around": "record_id , event, time\n00001 , 1, 0.5\n00002, 0 , 3.25\n",
    "days": "record_id,event,time_days\n00001,1,182.625\n00002,0,1187.0625\n",
    "months": "record_id,event,time_months\n00001,1,6\n00002,0,39\n",
    "words": "record_id;event;time\n00001;ja;0,5\n00002;nein;3,25\n",
}


@pytest.mark.parametrize("form", FORMS)
def test_outcomes_are_the_same_in_whatever_form_they_come(write, plain, form):
    found = read_outcomes(write(FORMS[form]))[["record_id", "event", "time"]]
    pd.testing.assert_frame_equal(found, plain, check_exact=False)


def test_a_workbook_gives_ids_with_their_zeros_numbers_and_dates(tmp_path, plain):
    rows = [["record_id", "event", "time", "seen"], [Id(1), 1, 0.5, date(2015, 6, 1)], ["00002", 0, 3.25, None]]
    found = read_outcomes(workbook(tmp_path / "outcomes.xlsx", rows))
    pd.testing.assert_frame_equal(found[["record_id", "event", "time"]], plain)
    assert found["seen"].tolist()[0] == "2015-06-01"
    assert pd.isna(found["seen"].tolist()[1])
    assert "sheet 'Tabelle1' of an Excel workbook, 2 rows" in found.attrs["understood"][0]


@pytest.mark.parametrize("first", ["hidden", "veryHidden", "empty"])
def test_a_hidden_or_empty_sheet_in_front_is_not_taken_for_the_table(tmp_path, plain, first):
    rows = [["record_id", "event", "time"], [Id(1), 1, 0.5], ["00002", 0, 3.25]]
    found = read_outcomes(workbook(tmp_path / "outcomes.xlsx", rows, in_front=first))
    pd.testing.assert_frame_equal(found[["record_id", "event", "time"]], plain)
    assert "sheet 'Tabelle1' of an Excel workbook" in found.attrs["understood"][0]


def test_dates_of_a_workbook_are_those_that_excel_shows(tmp_path):
    days = [date(1900, 1, 1), date(1900, 2, 28), date(1900, 3, 1), date(2015, 12, 31)]
    rows = [["record_id", "seen"], *([f"r{i}", day] for i, day in enumerate(days))]
    found = read_hospital_table(workbook(tmp_path / "dates.xlsx", rows))
    assert found["seen"].tolist() == [day.isoformat() for day in days]


def test_rows_without_an_outcome_are_left_out_and_counted(write, plain):
    found = read_outcomes(write(PLAIN + "00003,,\n"))
    assert found["record_id"].tolist() == ["00001", "00002"]
    assert "1 rows without an outcome left out" in found.attrs["understood"]
    with pytest.raises(ValueError, match="time of record 00003: expected years"):
        read_outcomes(write(PLAIN + "00003,1,\n"))


def test_columns_of_other_names_are_given_and_never_guessed(write, plain):
    path = write("EKG-Nr;Ereignis;Jahre\n00001;1;0,5\n00002;0;3,25\n")
    with pytest.raises(ValueError, match="got EKG-Nr, Ereignis, Jahre; columns of other names: ecgdan data outcomes "):
        read_outcomes(path)
    mapping = parse_mapping("record_id=EKG-Nr, event=Ereignis,time=Jahre")
    found = read_outcomes(path, mapping)
    pd.testing.assert_frame_equal(found, plain)
    assert "read EKG-Nr as record_id, Ereignis as event, Jahre as time" in found.attrs["understood"]
    with pytest.raises(ValueError, match=r"columns: expected a column EKG \(for record_id\), got EKG-Nr"):
        read_outcomes(path, {"record_id": "EKG"})
    with pytest.raises(ValueError, match="columns: expected names as record_id=EKG-Nr"):
        parse_mapping("record_id")


DATES = {
    "2010-01-31, 2010-08-01, 2013-05-01": "years first",
    "31.01.2010, 01.08.2010, 01.05.2013": "points",
    "31/01/2010, 01/08/2010, 01/05/2013": "slashes, days first",
    "01/31/2010, 08/01/2010, 05/01/2013": "slashes, months first",
    "2010-01-31 09:15, 2010-08-01T10:00:00, 2013-05-01 00:00:00": "with a time of day",
}


@pytest.mark.parametrize("dates", DATES)
def test_event_and_time_follow_from_dates(write, dates):
    start, event, last = dates.split(", ")
    text = f"record_id,ecg_date,event_date,last_contact\na,{start},{event},{last}\nb,{start},,{last}\nc,{start},,\n"
    found = read_outcomes(write(text))
    assert found["record_id"].tolist() == ["a", "b"]
    assert found["event"].tolist() == [1, 0]
    assert found["time"].tolist() == pytest.approx([182 / 365.25, 1186 / 365.25])
    assert any("ecg_date, event_date, last_contact" in line for line in found.attrs["understood"])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            "a,2010-01-01,,2009-01-01\n",
            r"row 2: expected an end of follow-up after the ECG, got 2009-01-01 after 2010",
        ),
        ("a,01/02/2010,02/03/2011,03/04/2012\n", "one shows whether days or months come first, got '01/02/2010'"),
        ("a,13/02/2010,02/13/2011,03/04/2012\n", "days and months in both orders"),
        ("a,1.1.10,,2.2.2012\n", "expected a date as 2015-06-01, 01.06.2015 or 25/12/2015, got '1.1.10'"),
    ],
)
def test_dates_that_cannot_be_read_are_refused(write, rows, message):
    with pytest.raises(ValueError, match=message):
        read_outcomes(write("record_id,ecg_date,event_date,last_contact\n" + rows))


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ([400.0, 1460.5, 2000.0], "got a median of 1460.5, which looks like days; call the column time_days"),
        ([float(i) for i in range(6, 60)], "got a median of 32.5, which looks like months"),
        (list(range(5, 35)), "got a median of 19.5, which looks like months"),
    ],
)
def test_follow_up_in_days_or_months_is_refused_with_its_median(write, times, message):
    rows = "".join(f"{i},1,{time}\n" for i, time in enumerate(times))
    with pytest.raises(ValueError, match=message):
        read_outcomes(write("record_id,event,time\n" + rows))
    assert len(read_outcomes(write("record_id,event,time_years\n" + rows))) == len(times)


def test_ids_that_lost_their_zeros_find_their_records(write):
    table = pd.DataFrame({"record_id": ["00001", "00002", "00103"], "patient_id": ["a", "b", "c"]})
    joined = join_outcomes(table, read_outcomes(write("record_id,event,time\n1,1,1\n103,0,2\n")))
    assert joined["record_id"].tolist() == ["00001", "00103"]
    unclear = pd.concat([table, pd.DataFrame({"record_id": ["1x", "001"], "patient_id": ["d", "e"]})])
    with pytest.raises(ValueError, match="1 of 2 ids are not in the data: 1"):
        join_outcomes(unclear, read_outcomes(write("record_id,event,time\n1,1,1\n00103,0,2\n")))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("record_id;event;time\na;1;1.000,5\nb;0;2,5\n", "column time: expected numbers without marks of thousands"),
        ("record_id,event,event\na,1,1\n", "expected each column once, got event more than once"),
        (b"\xd0\xcf\x11\xe0" + bytes(600), "an Excel workbook of 2003 or older; save it as .xlsx or .csv"),
        (b"PK\x03\x04" + bytes(60), "truncated or damaged zip file"),
        (bytes(range(256)), "a file that is no text"),
        (b"", "got an empty file"),
        ('record_id,event,time\n"a,1,1\n', "not a readable CSV"),
    ],
)
def test_tables_that_cannot_be_read_are_refused_in_one_line(write, content, message):
    path = write(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_hospital_table(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_table_of_files_may_be_written_as_excel_does(write, tmp_path):
    write("file;patient_id;age;event;time\nx/1;007;61,5;1;2,5\nx/2;008;;;\n", "table.csv")
    found = read_csv_table(tmp_path)
    assert found["patient_id"].tolist() == ["007", "008"]
    assert found["age"].tolist()[0] == 61.5
    assert found["time"].tolist()[0] == 2.5
    assert found[["event", "time"]].isna().all(axis=1).tolist() == [False, True]


@pytest.mark.parametrize(
    ("content", "entry"),
    [
        ("record_id,event,time,entry\na,1,2,0\nb,0,3,1.5\n", [0.0, 1.5]),
        ("record_id;event;time_days;entry\na;1;730,5;0\nb;0;1461;365,25\n", [0.0, 1.0]),
        ("record_id,event,time_months,entry\na,1,24,6\nb,0,36,0\n", [0.5, 0.0]),
        (
            "record_id,ecg_date,event_date,last_contact,entry_date\n"
            "a,2010-01-01,2012-01-01,,2009-06-01\nb,2010-01-01,,2014-01-01,2011-01-01\n",
            [0.0, 365 / 365.25],
        ),
    ],
)
def test_delayed_entry_is_read_in_the_unit_of_the_follow_up(write, content, entry):
    assert read_outcomes(write(content))["entry"].tolist() == pytest.approx(entry)


@pytest.mark.parametrize("entry", ["2", "-1", "", "late"])
def test_an_entry_that_is_not_before_the_end_of_follow_up_is_refused(write, entry):
    message = "entry of record a: expected the start of observation, from 0 .* to before `time`, got"
    with pytest.raises(ValueError, match=message) as caught:
        read_outcomes(write(f"record_id,event,time,entry\na,1,2,{entry}\nb,0,3,0\n"))
    assert "\n" not in str(caught.value)


def test_a_competing_death_before_the_entry_is_refused(write):
    outcomes = read_outcomes(write("record_id,event,time,entry\na,1,2,0\nb,0,3,1.5\n"))
    deaths = pd.DataFrame({"record_id": ["b"], "event": [1], "time": [1.0]})
    with pytest.raises(ValueError, match="deaths: entry of record b: expected the start of observation"):
        with_deaths(outcomes, deaths)
