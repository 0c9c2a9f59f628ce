import re
import zipfile
from datetime import date

import pandas as pd
import pytest
from fixtures.write_cardiosoft import FLOW, OUTCOMES, PEOPLE, VISIT_3, write_fields, write_ukbiobank
from fixtures.write_workbook import workbook
from pandas.testing import assert_frame_equal

from ecgdan_hf.cli.main import app
from ecgdan_hf.data.sources.csv_table import join_outcomes, read_outcomes
from ecgdan_hf.data.sources.ukb_cohort import build
from ecgdan_hf.data.sources.ukbiobank import read_ukbiobank
from ecgdan_hf.training.arguments.command import run_safely

NUMBER = re.compile(r"90000\d\d")


@pytest.fixture(scope="module")
def biobank(tmp_path_factory):
    """ECGs, fields, withdrawn; read, do not write."""
    return write_ukbiobank(tmp_path_factory.mktemp("biobank"))


@pytest.fixture
def made(biobank):
    def make(**options):
        ecgs, fields, withdrawn = biobank
        return build(ecgs, options.pop("fields_table", fields), **{"withdrawn": withdrawn, **options})

    return make


@pytest.fixture
def edited_fields(biobank, tmp_path):
    """The table of fields with some values changed: (line, column), both counted from 0."""

    def edit(changes: dict) -> str:
        rows = [line.split(",") for line in biobank[1].read_text(encoding="utf-8").splitlines()]
        for (line, column), value in changes.items():
            rows[line][column] = value
        path = tmp_path / "edited.csv"
        path.write_text("\n".join(map(",".join, rows)), encoding="utf-8")
        return str(path)

    return edit


def line_of(number: str) -> int:
    """Line of a participant in the table, the header being line 0."""
    return [name for name in PEOPLE if PEOPLE[name][1] is not None].index(number) + 1


def refuse(message, call, *arguments, **options):
    with pytest.raises(ValueError, match=message) as error:
        call(*arguments, **options)
    assert "\n" not in str(error.value) and not NUMBER.search(str(error.value))


# The cohort


def test_flow_and_outcomes_are_those_computed_by_hand(made):
    cohort = made()
    assert list(cohort.flow.itertuples(index=False, name=None)) == FLOW
    found = cohort.outcomes.set_index("patient_id")
    assert found.index.tolist() == list(OUTCOMES)
    for number, (event, days, competing) in OUTCOMES.items():
        assert (found.loc[number, "event"], found.loc[number, "competing_event"]) == (event, competing), number
        assert found.loc[number, "time"] * 365.25 == pytest.approx(days, abs=1e-3), number
    assert cohort.notes == ("1 ECGs without a day of the visit; their file's was taken",)


def test_age_is_that_of_the_day_and_sex_is_coded_as_in_field_31(made):
    found = made().outcomes.set_index("patient_id")
    assert found.loc["9000001", "age"] == pytest.approx(64.96, abs=0.01)  # born mid-June 1950
    assert found.loc["9000018", "age"] == pytest.approx(65.71, abs=0.01)
    assert (found.loc["9000001", "sex"], found.loc["9000002", "sex"]) == ("male", "female")


@pytest.mark.parametrize("spelling", ["csv", "r"])
def test_every_spelling_of_the_columns_gives_the_same(made, tmp_path, spelling):
    assert_frame_equal(made(fields_table=write_fields(tmp_path, spelling)).outcomes, made().outcomes)


TITLES = [
    "Participant ID",
    "Date I10 first reported (essential (primary) hypertension)",
    "Date of myocardial infarction",
    "Date I50 first reported (heart failure)",
    "Date of death | Instance 0",
    "Date lost to follow-up",
    "Date of attending assessment centre | Instance 2",
    "Date of attending assessment centre | Instance 3",
    "Sex",
    "Year of birth",
    "Month of birth",
    "Age at recruitment",
]


def british(value: str) -> str:
    return re.sub(r"^(\d{4})-(\d\d)-(\d\d)$", r"\3/\2/\1", value)


@pytest.mark.parametrize("form", ["semicolons", "british dates", "titles", "workbook"])
def test_every_form_of_the_table_gives_the_same(biobank, made, tmp_path, form):
    rows = [line.split(",") for line in biobank[1].read_text(encoding="utf-8").splitlines()]
    path, mark = tmp_path / "fields.csv", ";" if form == "semicolons" else ","
    if form == "british dates":
        rows = [[british(value) for value in row] for row in rows]
    if form == "titles":
        rows[0] = TITLES
    if form == "workbook":
        day = re.compile(r"\d{4}-\d\d-\d\d")
        cells = [[date.fromisoformat(word) if day.fullmatch(word) else word or None for word in row] for row in rows]
        path = workbook(tmp_path / "fields.xlsx", cells)
    else:
        path.write_text("\n".join(map(mark.join, rows)), encoding="utf-8")
    assert_frame_equal(made(fields_table=path).outcomes, made().outcomes)


def test_meanings_instead_of_codes_give_the_same(made, edited_fields):
    changed = {
        (line_of("9000011"), 1): "Code has event date matching participant's date of birth",
        (line_of("9000012"), 1): "Code has no event date",
        (line_of("9000013"), 3): "Code has event date in the future and is presumed to be a place-holder or other "
        "system default",
        (line_of("9000020"), 2): "Date is unknown",
        (line_of("9000001"), 8): "Male",
        (line_of("9000002"), 8): "0.0",
        (line_of("9000001"), 10): "June",
        (line_of("9000001"), 3): "2018-06-01T00:00:00",
    }
    found = made(fields_table=edited_fields(changed))
    assert_frame_equal(found.outcomes, made().outcomes)
    assert_frame_equal(found.flow, made().flow)


@pytest.mark.parametrize("code", ["1900-01-01", "1901-01-01", "1909-09-09", "2037-07-07"])
def test_a_disease_at_an_unknown_time_is_neither_prevalent_nor_incident(made, edited_fields, code):
    hypertension, failure = (
        made(fields_table=edited_fields({(line_of("9000001"), column): code})) for column in (1, 3)
    )
    assert "9000001" not in {*hypertension.outcomes["patient_id"], *failure.outcomes["patient_id"]}
    assert dict(zip(hypertension.flow["step"], hypertension.flow["left_out"], strict=True))[FLOW[7][0]] == 3
    assert dict(zip(failure.flow["step"], failure.flow["left_out"], strict=True))[FLOW[5][0]] == 2


def test_zips_give_the_same(biobank, made, tmp_path):
    for file in biobank[0].rglob("*.xml"):
        with zipfile.ZipFile(tmp_path / f"{file.stem}.zip", "w") as archive:
            archive.write(file, file.name)
    assert_frame_equal(build(tmp_path, biobank[1], withdrawn=biobank[2]).outcomes, made().outcomes)


def test_the_last_day_counts_and_the_day_after_does_not(made):
    patients = {"9000010": (2709, 0), "9000015": (2709, 1)}
    early, late = (made(end_of_follow_up=date(2022, month, day)).outcomes for month, day in ((10, 30), (11, 1)))
    for number, (days, event) in patients.items():
        before, after = (table.set_index("patient_id").loc[number] for table in (early, late))
        assert (before["event"], round(before["time"] * 365.25)) == (0, days - 1)
        assert (after["event"], round(after["time"] * 365.25)) == (1, days + 1 - event)


@pytest.mark.parametrize(
    ("prevalent", "more", "less"),
    [
        ("none", {"9000005", "9000012"}, set()),
        ("hypertension", set(), {"9000002", "9000020"}),
        ("myocardial-infarction", set(), set(OUTCOMES) - {"9000002", "9000020"}),
    ],
)
def test_the_condition_decides_who_is_in(made, prevalent, more, less):
    found = set(made(prevalent=prevalent).outcomes["patient_id"])
    assert found == (set(OUTCOMES) | more) - less


def test_one_visit_or_every_ecg_may_be_asked_for(made):
    third = made(instance=3, end_of_follow_up=date(2023, 1, 1))
    assert third.outcomes["record_id"].tolist() == ["9000015_20205_3_0"]
    days = (date(2022, 10, 31) - date.fromisoformat(VISIT_3)).days
    assert third.outcomes["time"][0] * 365.25 == pytest.approx(days, abs=1e-3)
    every = made(all_ecgs=True).outcomes
    assert (every["patient_id"] == "9000015").sum() == 2 and len(every) == len(OUTCOMES) + 1
    assert "not the participant's first ECG" not in set(made(all_ecgs=True).flow["step"])


def test_withdrawn_participants_are_in_without_the_list(made):
    assert "9000017" in set(made(withdrawn=None).outcomes["patient_id"])


def test_other_fields_and_several_of_them_may_be_named(made, edited_fields):
    failure = made(fields={"heart-failure": "42000"}).outcomes.set_index("patient_id")
    assert "9000002" not in failure.index  # its infarction of 2012 now is the heart failure
    both = made(fields={"heart-failure": "131354,42000"}, prevalent="none").outcomes.set_index("patient_id")
    assert both.loc["9000005", "time"] * 365.25 == pytest.approx((date(2016, 1, 1) - date(2015, 6, 1)).days, abs=1e-3)


def test_the_day_of_the_visit_wins_over_that_of_the_file_and_is_compared(made, edited_fields):
    found = made(fields_table=edited_fields({(line_of("9000001"), 6): "2015-06-02"}))
    assert found.outcomes["time"][0] * 365.25 == pytest.approx(1095, abs=1e-3)
    assert found.notes[0] == "1 ECGs whose file says another day than the visit; the visit's was taken"


# What is written


def test_what_is_written_joins_the_table_it_came_from(biobank, made, tmp_path):
    flow_file = made().write(tmp_path / "outcomes.csv")
    joined = join_outcomes(read_ukbiobank(biobank[0]), read_outcomes(tmp_path / "outcomes.csv"))
    assert len(joined) == len(OUTCOMES) and joined["event"].sum() == 4 and joined.attrs["without_outcome"] == 11
    assert flow_file == tmp_path / "outcomes_flow.csv" and not NUMBER.search(flow_file.read_text(encoding="utf-8"))
    assert pd.read_csv(flow_file)["left_out"].tolist() == [row[1] for row in FLOW]


def test_a_cohort_without_heart_failure_is_refused_and_writes_nothing(made, tmp_path):
    cohort = made(end_of_follow_up=date(2015, 7, 1))
    refuse("expected heart failure in the cohort, got none in 9 ECGs", cohort.write, tmp_path / "outcomes.csv")
    assert list(tmp_path.iterdir()) == []


def run(*arguments) -> int:
    return run_safely(lambda: app(["data", *map(str, arguments)], standalone_mode=False))


def test_the_verb_writes_the_cohort_and_says_the_flow_without_a_number(biobank, tmp_path, capfd):
    ecgs, fields, withdrawn = biobank
    (ecgs / "9000099_copy.xml").write_text("x", encoding="utf-8")
    out = tmp_path / "o.csv"
    arguments = (ecgs, "--fields", fields, "--out", out, "--withdrawn", withdrawn, "--competing-death")
    assert run("ukb-cohort", *arguments) == 0
    (ecgs / "9000099_copy.xml").unlink()
    written = read_outcomes(out)
    expected = [2 if died else event for event, _, died in (OUTCOMES[number] for number in written["patient_id"])]
    assert written["event"].tolist() == expected and 2 in expected
    said = capfd.readouterr()
    assert "heart failure on or before the day of the ECG: -3, 13 ECGs of 13 participants" in said.out
    assert f"{out}: 10 ECGs, 4 with heart failure, 1 ended by death, median follow-up" in said.out
    assert not NUMBER.search(said.out + said.err)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["o.csv", "o_flow.csv"]


def test_the_verb_takes_its_options_and_says_what_is_wrong_in_a_line(biobank, tmp_path, capfd):
    ecgs, fields, _ = biobank
    need = ("ukb-cohort", ecgs, "--fields", fields, "--out", tmp_path / "o.csv")
    options = ("--end-of-follow-up", "2018-01-01", "--instance", "2", "--prevalent", "none")
    assert run(*need, *options, "--field", "heart-failure=131354,42000", "--all-ecgs") == 0
    written = read_outcomes(tmp_path / "o.csv")
    assert "competing_event" not in written and written["time"].max() == pytest.approx(945 / 365.25, abs=1e-5)
    capfd.readouterr()
    assert run(*need, "--field", "heart-failure") == 2
    assert capfd.readouterr().err == "error: --field: expected NAME=ID, got heart-failure\n"
    assert run(*need, "--end-of-follow-up", "soon") == 2
    assert capfd.readouterr().err == "error: --end-of-follow-up: expected a date such as 2022-10-31, got soon\n"
    assert run(*need, "--end-of-follow-up", "2022-13-01") == 2
    assert capfd.readouterr().err == "error: --end-of-follow-up: expected a date such as 2022-10-31, got 2022-13-01\n"
    before = fields.read_text(encoding="utf-8")
    assert run("ukb-cohort", ecgs, "--fields", fields, "--out", fields) == 2
    assert capfd.readouterr().err == f"error: --out: expected a file other than the inputs, got {fields}\n"
    assert fields.read_text(encoding="utf-8") == before
    assert run("ukb-cohort", tmp_path / "none", "--fields", fields, "--out", tmp_path / "o.csv") == 2
    assert capfd.readouterr().err == f"error: {tmp_path}/none: no such folder\n"


# Refusals


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({(5, 3): "31/12/2018"}, r"line 6: participant.p131354: expected a date as 2015-06-01 or nothing"),
        ({(5, 0): "nobody"}, "line 6: eid: expected a number"),
        ({(5, 0): "9000001"}, "line 6: eid: expected each participant once"),
        ({(5, 11): "65,"}, "line 6: expected 12 values, one under each name, got 13"),
        ({(line, 11): "65," for line in range(1, 20)}, "line 2: expected 12 values, one under each name, got 13"),
        ({(5, 11): "65\n9000099,2010-01-01"}, "line 7: expected 12 values, one under each name, got 2"),
        ({(0, 0): "number"}, "expected one column eid, participant.eid or f.eid, got 0"),
        (
            {(0, 3): "HF"},
            r"field 131354 \(heart-failure\), such as p131354 or 131354-0.0; .* --field heart-failure=ID",
        ),
        ({(0, 4): "death"}, r"field 40000 \(death\)"),
        ({(0, 1): "p1"}, r"field 131286 \(hypertension\)"),
    ],
)
def test_a_table_that_cannot_be_used_is_one_line_without_numbers(made, edited_fields, changes, message):
    refuse(message, made, fields_table=edited_fields(changes))


def test_what_is_not_asked_for_need_not_be_there(made, edited_fields):
    without = edited_fields({(0, 1): "p1", (0, 5): "p2", (0, 8): "p3", (0, 9): "p4"})
    found = made(fields_table=without, prevalent="myocardial-infarction").outcomes
    assert found["patient_id"].tolist() == ["9000002", "9000020"]
    assert found["age"].isna().all() and found["sex"].isna().all()


def test_options_that_mean_nothing_are_refused(made, tmp_path):
    refuse("prevalent: expected one of any, .* got 'stroke'", made, prevalent="stroke")
    refuse("end_of_follow_up: expected a day in the past, got 9999-12-31", made, end_of_follow_up=date(9999, 12, 31))
    refuse("fields: expected one of hypertension, .* got 'hf'", made, fields={"hf": "131354"})
    refuse(r"column of field 99 \(heart-failure\)", made, fields={"heart-failure": "131354,99"})
    refuse(r"column of field 98 \(sex\)", made, fields={"sex": "98"})
    refuse("fields: death: expected a field's number.* got 'p40000'", made, fields={"death": "p40000"})
    bad = tmp_path / "w.csv"
    bad.write_text("participant\n9000017\n9000018,9000019\n", encoding="utf-8")
    refuse("w.csv: line 3: expected a participant's number and nothing else", made, withdrawn=bad)
    bad.write_bytes(b"\x00\x01")
    refuse("expected a table with columns eid|not a readable table", made, fields_table=bad)
