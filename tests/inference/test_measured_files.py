"""A table of measurements for files."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from inference.test_prediction import write_npz

from ecgdan_hf.cli.data import VERBS
from ecgdan_hf.data.formats import read
from ecgdan_hf.data.measure.measurements import FLAGS, MEASUREMENTS, measure
from ecgdan_hf.data.measure.rhythm import RHYTHM
from ecgdan_hf.data.simulate.synthetic import write_cohort
from ecgdan_hf.inference.measured_files import FURTHER, Measurer, measure_files


@pytest.fixture(scope="module")
def ecgs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ecgs")
    write_cohort(folder / "cohort", n=20, seed=0)
    write_npz(folder / "unit.npz", unit="furlong")
    write_npz(folder / "two.npz", leads=2)
    return folder


def test_a_row_has_the_measurements_of_its_recording_and_each_lead(ecgs: Path) -> None:
    table = measure_files(ecgs).set_index("file")
    assert len(table) == 22 and {*MEASUREMENTS, *RHYTHM, *FLAGS, *FURTHER} <= set(table)
    first = table.loc[str(ecgs / "cohort/records/00/00001.hea")]
    expected = measure(read(ecgs / "cohort/records/00/00001"))
    assert first[list(MEASUREMENTS)].astype(float).to_dict() == pytest.approx(expected, nan_ok=True)
    rr = 60 / first["heart_rate_bpm"]
    assert first["qtc_framingham_ms"] == pytest.approx(first["qt_ms"] + 154 * (1 - rr))
    assert first["qtc_hodges_ms"] == pytest.approx(first["qt_ms"] + 1.75 * (first["heart_rate_bpm"] - 60))
    assert first["sokolow_lyon_mv"] == pytest.approx(first["s_V1_mv"] + max(first["r_V5_mv"], first["r_V6_mv"]))
    assert first["wide_qrs"] == float(first["qrs_ms"] > 100)
    assert "short_for_rr_variability:10s" in first["flags"].split(";") and first["num_leads"] == 12


def test_what_is_missing_is_blank_and_what_cannot_be_read_says_why(ecgs: Path) -> None:
    table = measure_files(ecgs).set_index("file")
    two, bad = table.loc[str(ecgs / "two.npz")], table.loc[str(ecgs / "unit.npz")]
    assert np.isfinite(two["heart_rate_bpm"]) and np.isnan(two["r_V1_mv"]) and two["num_leads"] == 6
    assert "furlong" in bad["error"] and pd.isna(bad["num_leads"]) and np.isnan(bad["heart_rate_bpm"])


def test_workers_and_the_command_make_the_same_table(ecgs: Path, tmp_path: Path, capsys) -> None:
    expected = measure_files(ecgs)
    pd.testing.assert_frame_equal(measure_files(ecgs, num_workers=2), expected)
    VERBS["measure"]([ecgs], tmp_path / "a.parquet")
    found = pd.read_parquet(tmp_path / "a.parquet")
    assert list(found) == Measurer().columns
    np.testing.assert_array_equal(found["qrs_ms"], expected["qrs_ms"])
    assert "a.parquet: 22 files, 1 could not be used, see the column error" in capsys.readouterr().out
