"""Cells of CSV files that spreadsheets would compute."""

from pathlib import Path

import pandas as pd
import pytest

from ecgdan_hf.inference.archive import GrowingTable
from ecgdan_hf.spreadsheets import original_cells, plain_cells

FORMULAS = ["=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(1)", "\t=1", "\r=1", "'=1+1", '=HYPERLINK("http://x")']
HARMLESS = ["a=b", "-0.5", "+3", "1e5", "I,II", "'t was", "", "ecg-1.npz"]


@pytest.mark.parametrize("text", FORMULAS)
def test_a_formula_becomes_text_in_cells_and_headers_and_comes_back_unchanged(text: str) -> None:
    table = pd.DataFrame({"file": [text], text: [-1.5]})
    safe = plain_cells(table)
    assert safe["file"][0] == safe.columns[1] == f"'{text}" and safe.iloc[0, 1] == -1.5
    pd.testing.assert_frame_equal(original_cells(safe), table)


@pytest.mark.parametrize("text", HARMLESS)
def test_names_and_numbers_are_left_alone(text: str) -> None:
    assert plain_cells(pd.DataFrame({"file": [text]}))["file"][0] == text


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_file_names_and_errors_of_an_archive_are_no_formulas_and_a_run_still_resumes(
    suffix: str, tmp_path: Path
) -> None:
    columns, files = ["file", "risk", "num_leads", "error"], [Path("=1+1.npz"), Path("-a.npz")]
    rows = [dict(zip(columns, [str(file), -0.5, 12, "@error"], strict=True)) for file in files]
    table = GrowingTable(tmp_path / f"out{suffix}", columns, {})
    table.open(files, resume=False)
    table.append(rows[:1])
    table._file.close()
    again = GrowingTable(table.out, columns, {})
    again.open(files, resume=True)
    assert again.num_rows == 1
    again.append(rows[1:])
    again.finish()
    if suffix == ".csv":
        found = pd.read_csv(table.out)
        assert found["file"].tolist() == ["'=1+1.npz", "'-a.npz"] and found["error"].tolist() == ["'@error"] * 2
        assert found["risk"].tolist() == [-0.5, -0.5]
    else:
        assert pd.read_parquet(table.out)["file"].tolist() == ["=1+1.npz", "-a.npz"]
