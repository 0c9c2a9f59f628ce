import shutil
from pathlib import Path

import pytest

from ecgdan_hf.data.prepared.cache import code_digest

PACKAGE = Path(__file__).parents[3] / "ecgdan_hf"
ROWS = "ecgdan_hf.data.prepared.preparation"
MEASUREMENTS = "ecgdan_hf.data.measure.measurements"
BEATS = "ecgdan_hf.data.simulate.simulated_beats"


@pytest.fixture
def package(tmp_path):
    """A copy of the package's code, to change; a new folder, so that nothing is remembered of another."""
    return shutil.copytree(PACKAGE, tmp_path / "ecgdan_hf", ignore=shutil.ignore_patterns("__pycache__", "*.csv"))


def changed_by(package, file, module):
    before = code_digest.__wrapped__(module, package)
    (package / file).write_bytes((package / file).read_bytes() + b"\n")
    return code_digest.__wrapped__(module, package) != before


@pytest.mark.parametrize(
    ("module", "file"),
    [
        (ROWS, "data/prepared/preparation.py"),
        (ROWS, "data/prepared/record_file.py"),
        (ROWS, "data/formats.py"),
        (ROWS, "data/record.py"),
        (ROWS, "data/readers/vendor_sizes.py"),
        (ROWS, "model/feature_extraction_ecgdan.py"),
        (ROWS, "model/median_beat_ecgdan.py"),
        (MEASUREMENTS, "data/measure/delineation.py"),
        (BEATS, "data/simulate/premature_beats.py"),
        (BEATS, "model/waveform_danet.py"),
    ],
)
def test_changing_a_file_that_makes_rows_changes_the_digest(module, file, package):
    assert changed_by(package, file, module)


@pytest.mark.parametrize(
    "file",
    ["__init__.py", "data/splits.py", "data/sources/ptbxl.py", "data/check/page.py", "model/modeling_ecgdan.py"],
)
def test_changing_an_unrelated_file_leaves_the_digest(file, package):
    assert not changed_by(package, file, ROWS)


def test_relative_imports_and_those_inside_functions_count(package):
    (package / "data/new.py").write_text("def f():\n    from .deeper import g\n    return g\n")
    (package / "data/deeper.py").write_text("from ..cli import main\n")
    for file in ("data/deeper.py", "cli/main.py"):
        assert changed_by(package, file, "ecgdan_hf.data.new")


def test_the_digest_is_computed_once_for_a_process():
    code_digest.cache_clear()
    first = code_digest(ROWS)
    assert code_digest(ROWS) is first
    assert code_digest.cache_info().hits == 1
