import json
import os
import shutil
import signal

import numpy as np
import pandas as pd
import pytest
from fixtures.write_sources import write_code15

from ecgdan_hf.data.check import folder as folder_check
from ecgdan_hf.data.check.folder import check
from ecgdan_hf.data.check.problems import PROBLEMS, summary
from ecgdan_hf.data.check.signals import _signal_hash
from ecgdan_hf.data.prepared.record_file import RecordFile
from ecgdan_hf.data.prepared.shards import in_order
from ecgdan_hf.data.simulate import synthetic
from ecgdan_hf.data.sources import registry as sources
from ecgdan_hf.model.configuration_ecgdan import STANDARD_LEADS

RECORDS = 8


@pytest.fixture
def folder(cohort, tmp_path):
    """The first records of the cohort, to spoil."""
    table = pd.read_csv(cohort / "table.csv", dtype={"record_id": str}).iloc[:RECORDS]
    for name in table["file"]:
        for suffix in (".hea", ".dat"):
            target = (tmp_path / "ecgs" / name).with_suffix(suffix)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile((cohort / name).with_suffix(suffix), target)
    table.drop(columns=["event", "time"]).to_csv(tmp_path / "ecgs" / "table.csv", index=False)
    return tmp_path / "ecgs"


def edit_table(folder, **columns):
    table = pd.read_csv(folder / "table.csv", dtype={"record_id": str})
    table.assign(**columns).to_csv(folder / "table.csv", index=False)


def data_file(folder, number):
    return folder / f"records/00/{number:05d}.dat"


def edit_signal(folder, number, change):
    path = data_file(folder, number)
    samples = np.fromfile(path, dtype="<i2").reshape(-1, 12)
    np.asarray(change(samples), dtype="<i2").tofile(path)


def write_outcomes(folder, ids, **columns):
    path = folder.parent / "outcomes.csv"
    columns = {"event": [1, 0] * (len(ids) // 2) + [1] * (len(ids) % 2), "time": 2.5, **columns}
    pd.DataFrame({"record_id": ids}).assign(**columns).to_csv(path, index=False)
    return path


def problems(folder, **options):
    """The names of the problems and where each was found."""
    facts = check(None, folder, num_proc=1, **options).facts
    return {name: problem["found"] for name, problem in facts["problems"].items()}


IDS = [f"{number:05d}" for number in range(1, RECORDS + 1)]


def test_a_good_folder_has_no_problem_and_is_counted(folder):
    facts = check(None, folder, num_proc=1).facts
    assert facts["problems"] == {}
    assert facts["errors"] == facts["warnings"] == 0
    assert (facts["source"], facts["records"], facts["readable"], facts["patients"]) == ("csv", 8, 8, 8)
    assert facts["sampling_rates"] == {"500": 8}
    assert facts["durations_seconds"] == {"10": 8}
    assert facts["leads"] == {", ".join(STANDARD_LEADS): 8}
    assert sum(facts["folds"].values()) == 8
    assert 0.4 < facts["qrs_mv"]["p50"] < 2
    assert facts["outcomes"] is None
    assert summary(facts)[-1] == "nothing is wrong"


def test_a_damaged_file_is_listed_and_the_others_are_checked(folder):
    data_file(folder, 3).write_bytes(b"cut")
    edit_signal(folder, 5, lambda samples: samples * [*[1] * 6, 0, *[1] * 5])
    found = problems(folder)
    assert found.keys() == {"unreadable", "lead_flat", "checksum_differs"}
    assert "00003.dat is truncated" in found["unreadable"]["00003"]
    assert found["lead_flat"] == found["checksum_differs"] == {"00005": "V1"}


def test_a_missing_file_is_listed(folder):
    data_file(folder, 3).unlink()
    assert "its data file is missing: 00003.dat" in problems(folder)["unreadable"]["00003"]


def test_whatever_a_decoder_raises_is_listed_with_the_file(tmp_path):
    broken = RecordFile(str(tmp_path / "a.npy"), {"no_such_option": 1})
    seen = folder_check._inspect(broken)
    assert seen.error.startswith(f"{tmp_path / 'a.npy'}: TypeError: ")


def test_the_same_signal_under_two_patients_is_an_error_and_under_one_a_warning(folder):
    shutil.copyfile(data_file(folder, 1), data_file(folder, 4))
    header = data_file(folder, 1).with_suffix(".hea").read_text(encoding="utf-8")
    data_file(folder, 4).with_suffix(".hea").write_text(header.replace("00001", "00004"), encoding="utf-8")
    assert problems(folder) == {"duplicate_of_other_patient": {"00004": "as 00001"}}
    edit_table(folder, patient_id=["A", "B", "C", "A", "D", "E", "F", "G"], fold=1)
    assert problems(folder) == {"duplicate_of_same_patient": {"00004": "as 00001"}}


def test_the_same_signal_is_found_in_another_format(folder, tmp_path):
    samples = np.fromfile(data_file(folder, 2), dtype="<i2").reshape(-1, 12)
    table = pd.DataFrame(samples / 1000, columns=list(STANDARD_LEADS))[list(reversed(STANDARD_LEADS))]
    text = "# sampling_rate: 500\n# unit: mV\n" + table.to_csv(index=False, float_format="%.3f")
    (folder / "copy.csv").write_text(text, encoding="utf-8")
    edit_table(folder, file=["copy.csv", *[f"records/00/{record}" for record in IDS[1:]]])
    assert problems(folder) == {"duplicate_of_other_patient": {"00002": "as 00001"}}


def test_a_patient_in_two_folds_is_an_error(folder):
    edit_table(folder, patient_id=["A", "B", "A", *"CDEFG"], fold=[1, 1, 2, 1, 1, 1, 1, 1])
    facts = check(None, folder, num_proc=1).facts
    assert facts["problems"]["patient_in_several_folds"]["found"] == {"00001": "folds 1, 2", "00003": "folds 1, 2"}
    assert (facts["patients"], facts["patients_with_several_records"], facts["errors"]) == (7, 1, 2)


def test_patients_of_the_outcomes_table_replace_those_of_the_data(folder):
    edit_table(folder, fold=[1, 2, 1, 1, 1, 1, 1, 1])
    assert problems(folder) == {}
    outcomes = write_outcomes(folder, IDS, patient_id=["A", "A", *"BCDEFG"])
    assert problems(folder, labels=outcomes).keys() == {"patient_in_several_folds"}


def test_outcomes_are_joined_and_described(folder):
    outcomes = write_outcomes(folder, IDS, time=np.arange(1.0, 9.0))
    check_ = check(None, folder, labels=outcomes, num_proc=1)
    assert check_.facts["problems"] == {}
    assert check_.facts["outcomes"] == {
        "rows": 8, "events": 4, "shortest_years": 1.0, "median_years": 4.5, "longest_years": 8.0
    }  # fmt: skip


def test_outcomes_and_records_that_do_not_meet_are_named(folder):
    outcomes = write_outcomes(folder, [*IDS[:6], "x9"])
    found = problems(folder, labels=outcomes)
    assert found == {
        "outcome_without_record": {"x9": ""}, "record_without_outcome": {"00007": "", "00008": ""}
    }  # fmt: skip


def test_the_join_looks_at_all_records_whatever_the_limit(folder):
    outcomes = write_outcomes(folder, IDS)
    found = check(None, folder, labels=outcomes, limit=2, num_proc=1).facts
    assert (found["records"], found["problems"]) == (2, {})
    with pytest.raises(ValueError, match="limit: expected at least one record, got 0"):
        check(None, folder, limit=0)


def test_times_in_days_and_tables_that_training_refuses_are_errors(folder):
    days = write_outcomes(folder, IDS, time=900.0)
    assert (
        "got a median of 900, which looks like days"
        in problems(folder, labels=days)["outcomes_refused"]["outcomes.csv"]
    )
    one = write_outcomes(folder, IDS, time=[900.0, *[1.0] * 7])
    assert problems(folder, labels=one)["time_impossible"] == {IDS[0]: "900"}
    negative = write_outcomes(folder, IDS, time=-1.0)
    assert "a number above zero, got -1.0" in problems(folder, labels=negative)["outcomes_refused"]["outcomes.csv"]
    censored = write_outcomes(folder, [*IDS, "x9"], event=[*[0] * 8, 1])
    assert "no event among the records here" in problems(folder, labels=censored)["outcomes_refused"].values()
    with pytest.raises(FileNotFoundError, match=r"none\.csv"):
        check(None, folder, labels=folder / "none.csv")


def test_records_with_fewer_leads_than_the_others_are_named(folder):
    header = folder / "records/00/00006.hea"
    lines = header.read_text(encoding="utf-8").splitlines()
    samples = np.fromfile(data_file(folder, 6), dtype="<i2").reshape(-1, 12)[:, :11]
    samples.tofile(data_file(folder, 6))
    header.write_text("\n".join([lines[0].replace(" 12 ", " 11 "), *lines[1:12]]) + "\n", encoding="utf-8")
    assert problems(folder) == {"lead_missing": {"00006": "V6"}}


def test_a_folder_of_single_lead_records_lacks_nothing(write_record, tmp_path, ecg):
    for i in range(2):
        write_record(f"device/{i}", ecg[:1, 500 * i :])
    facts = check(None, tmp_path / "device", num_proc=1).facts
    assert facts["leads"] == {"I": 2}
    assert facts["problems"] == {}


def test_mixed_rates_and_durations_are_counted(write_record, tmp_path, ecg):
    write_record("mixed/a")
    write_record("mixed/b", ecg[:, ::5], fs=100)
    write_record("mixed/c", ecg[:, :4000])
    facts = check(None, tmp_path / "mixed", num_proc=1).facts
    assert facts["sampling_rates"] == {"500": 2, "100": 1}
    assert facts["durations_seconds"] == {"10": 2, "8": 1}


@pytest.fixture(scope="module")
def sized(tmp_path_factory):
    """Writes a folder of 24 short records whose amplitudes are multiplied."""

    def write(factors):
        path = tmp_path_factory.mktemp("sized")
        rows = []
        for i, factor in enumerate(factors):
            signal = synthetic.make_signal(0.0, 95.0, 75.0, seed=i)[:, :2000]
            np.savez(
                path / f"{i:02d}.npz", signal=signal * factor, sampling_rate=500, unit="mV", lead_names=STANDARD_LEADS
            )
            rows.append({"record_id": f"{i:02d}", "patient_id": i, "file": f"{i:02d}.npz"})
        pd.DataFrame(rows).to_csv(path / "table.csv", index=False)
        return path

    return write


def test_records_of_another_gain_than_the_rest_are_named(sized):
    found = problems(sized([1] * 22 + [0.4, 10]))
    assert list(found["amplitude_impossible"]) == ["23"]
    small = problems(sized([3.5] * 20 + [0.5] * 4))
    assert set(small["amplitude_differs"]) == {"20", "21", "22", "23"} - small.get("amplitude_doubtful", {}).keys()
    assert len(small["amplitude_differs"]) >= 3


def test_a_folder_whose_every_amplitude_is_off_is_named(sized):
    path = sized([5] * 24)
    assert list(problems(path)["amplitudes_unusual"]) == [path.name]


def test_of_two_mixed_scales_the_more_frequent_one_is_typical():
    small, large = np.full(13, 0.9), np.full(11, 9.0)
    assert folder_check._typical(np.concatenate([large, small])) == 0.9
    assert folder_check._typical(np.concatenate([large, small[:10]])) == 9.0


def test_several_processes_find_what_one_does(cohort):
    one, two = (check("csv", cohort, num_proc=processes) for processes in (1, 2))
    assert one.facts == two.facts
    assert one.facts["outcomes"]["rows"] == 40


def test_only_records_whose_follow_up_is_known_count_as_outcomes(tmp_path):
    facts = check("code-15", write_code15(tmp_path / "code15"), num_proc=1).facts
    assert facts["records"] == 4
    assert facts["outcomes"] == {
        **{"rows": 2, "events": 1},
        **{"shortest_years": 0.5, "median_years": 2.375, "longest_years": 4.25},
    }
    assert "outcomes: 2 rows, 1 events, 0.5 to 4.25 years" in summary(facts)


def test_the_facts_are_json_and_explain_each_problem(folder):
    data_file(folder, 3).write_bytes(b"cut")
    facts = check(None, folder, num_proc=1).facts
    assert json.loads(json.dumps(facts)) == facts
    problem = facts["problems"]["unreadable"]
    assert (problem["severity"], problem["count"], facts["errors"], facts["readable"]) == ("error", 1, 1, 7)
    assert problem["meaning"] and problem["advice"]
    assert "NaN" not in json.dumps(facts)


def test_the_worst_records_come_first_and_can_be_read(folder):
    data_file(folder, 1).write_bytes(b"cut")
    edit_signal(folder, 2, lambda samples: samples * [*[1] * 6, 0, *[1] * 5])
    edit_signal(folder, 6, lambda samples: samples * [*[1] * 6, 0, *[1] * 5])
    shutil.copyfile(data_file(folder, 6), data_file(folder, 7))
    worst = list(check(None, folder, num_proc=1).read_worst())
    assert [record_id for record_id, _ in worst] == ["00007", "00002", "00006"]
    assert all(record.signal_mv.shape == (12, 5000) for _, record in worst)


def test_the_terminal_shows_each_problem_once_with_three_examples_and_what_to_do(folder):
    for number in range(1, 6):
        edit_signal(folder, number, lambda samples: samples * [*[1] * 6, 0, *[1] * 5])
    lines = [line for line in summary(check(None, folder, num_proc=1).facts) if "lead_flat" in line]
    expected = "warning: lead_flat: 5: flat leads (00001: V1, 00002: V1, 00003: V1, ...); a model masks them"
    assert lines == [expected]


def test_errors_come_before_warnings_in_the_list_of_problems():
    severities = [problem.severity for problem in PROBLEMS.values()]
    assert severities == sorted(severities)


def test_the_recording_that_ptbxl_held_under_two_patients_is_found_and_read_once(shared):
    folder = shared / "data" / "ptb-xl"
    database = pd.read_csv(folder / "ptbxl_database.csv").set_index("ecg_id", drop=False).loc[[145, 463]]
    assert database["patient_id"].nunique() == database["strat_fold"].nunique() == 2
    pair = pd.DataFrame({"record_id": database["ecg_id"], "file": [str(folder / x) for x in database["filename_hr"]]})
    assert len({_signal_hash(file.read()) for file in RecordFile.of_table(pair)}) == 1
    assert set(sources.read_source("ptb-xl", folder)["record_id"]) & {"145", "463"} == {"463"}


class KillingFile(RecordFile):
    def read(self):
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_worker_ends_the_check_with_one_line():
    with pytest.raises(ChildProcessError, match="num_proc: one of 2 processes was killed"):
        list(in_order(folder_check._inspect, [KillingFile("a", {})] * 40, 2))
