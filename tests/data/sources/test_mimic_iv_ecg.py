import gzip
import shutil

import numpy as np
import pandas as pd
import pytest
from fixtures.write_sources import MIMIC_LEADS, write_mimic, write_mimic_hospital, write_mimic_reports

from ecgdan_hf.data.loading import load
from ecgdan_hf.data.prepared.record_file import RecordFile
from ecgdan_hf.data.simulate.synthetic import make_signal
from ecgdan_hf.data.sources import mimic_iv_ecg
from ecgdan_hf.model.configuration_ecgdan import STANDARD_LEADS


@pytest.fixture
def folder(tmp_path):
    return write_mimic(tmp_path / "mimic")


def test_rows_are_those_of_the_record_list(folder):
    table = mimic_iv_ecg.read_mimic_iv_ecg(folder)
    assert table["record_id"].tolist() == ["49990001", "49990002", "49990003", "49990004"]
    assert table["patient_id"].tolist() == ["19990001", "19990001", "19990002", "19990003"]
    assert table["ecg_time"][0] == "2180-07-23T08:44:00"
    assert table.columns.tolist() == ["record_id", "patient_id", "file", "ecg_time"]


def test_leads_go_by_name_although_the_files_have_avf_before_avl(folder, extractor, tmp_path):
    signal = make_signal(0.0, 98.0, 70.0, seed=1)
    record = RecordFile.of_table(mimic_iv_ecg.read_mimic_iv_ecg(folder))[0].read()
    assert record.lead_names == MIMIC_LEADS
    for lead in ("aVL", "aVF"):
        found = record.signal_mv[record.lead_names.index(lead)]
        np.testing.assert_allclose(found, signal[STANDARD_LEADS.index(lead)], atol=0.003)
    expected = extractor(signal, sampling_rate=500, unit="mV", lead_names=list(STANDARD_LEADS))["input_values"][0]
    dataset = load("mimic-iv-ecg", folder, feature_extractor=extractor, cache_dir=tmp_path / "cache", num_proc=1)
    np.testing.assert_allclose(dataset.with_format("numpy")[0]["input_values"], expected, atol=0.1)


def test_reports_are_the_lines_of_the_machine(folder):
    write_mimic_reports(folder)
    assert mimic_iv_ecg.read_mimic_iv_ecg(folder)["report"].tolist() == [
        "Sinus rhythm; Possible right atrial abnormality; Abnormal ECG",
        "Sinus rhythm; Abnormal ECG",
        "Ectopic atrial rhythm; Borderline ECG",
        "",
    ]


def test_age_at_the_ecg_and_sex_come_from_the_patients_table(folder):
    write_mimic_hospital(folder, admissions=False)
    table = mimic_iv_ecg.read_mimic_iv_ecg(folder)
    assert table["age"].tolist() == [52, 52, 48 + 7, 86]
    assert table["sex"].tolist() == ["female", "female", "female", "male"]
    assert "event" not in table


def test_death_is_followed_to_a_year_after_the_last_discharge(folder):
    write_mimic_hospital(folder)
    table = mimic_iv_ecg.read_mimic_iv_ecg(folder)
    assert table["event"].tolist()[:3] == [1, 1, 0]
    end_of_day = pd.Timestamp("2180-09-10") - pd.Timestamp("2180-07-23 08:44")
    assert table["time"][0] == pytest.approx(end_of_day / pd.Timedelta(days=365.25))
    censored = pd.Timestamp("2183-09-21 16:30") - pd.Timestamp("2181-03-04 17:14")
    assert table["time"][2] == pytest.approx(1 + censored / pd.Timedelta(days=365.25))
    assert table.loc[3, ["event", "time"]].isna().all()  # never admitted: alive until when is not known


def test_who_was_never_admitted_has_no_follow_up_even_when_dead(folder):
    write_mimic_hospital(folder)
    text = (folder / "patients.csv").read_text(encoding="utf-8")
    (folder / "patients.csv").write_text(text.replace("2014 - 2016,\n", "2014 - 2016,2140-01-01\n"), encoding="utf-8")
    table = mimic_iv_ecg.read_mimic_iv_ecg(folder)
    assert table.loc[3, ["event", "time"]].isna().all()


def test_hospital_tables_may_be_packed_and_in_their_own_folder(folder):
    write_mimic_hospital(folder)
    expected = mimic_iv_ecg.read_mimic_iv_ecg(folder)
    (folder / "hosp").mkdir()
    for name in ("patients.csv", "admissions.csv"):
        with (folder / name).open("rb") as plain, gzip.open(folder / "hosp" / f"{name}.gz", "wb") as packed:
            shutil.copyfileobj(plain, packed)
        (folder / name).unlink()
    pd.testing.assert_frame_equal(mimic_iv_ecg.read_mimic_iv_ecg(folder), expected)


def test_what_is_not_the_source_is_refused_in_one_line(folder):
    path = folder / "record_list.csv"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("study_id", "study"), encoding="utf-8")
    with pytest.raises(ValueError, match=r"record_list\.csv: expected the columns of MIMIC-IV-ECG, missing study_id"):
        mimic_iv_ecg.read_mimic_iv_ecg(folder)
    path.write_text(text.replace("2180-07-23 08:44:00", "yesterday-ish"), encoding="utf-8")
    with pytest.raises(ValueError, match=r"record_list\.csv: ecg_time: expected datetime64\[ns\] values"):
        mimic_iv_ecg.read_mimic_iv_ecg(folder)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"record_list\.csv: no such file"):
        mimic_iv_ecg.read_mimic_iv_ecg(folder)
