import shutil
from pathlib import Path

import pytest

from ecgdan_hf.data.prepared.cache import code_digest

PACKAGE = Path(__file__).parents[3] / "ecgdan_hf"
ROWS = "ecgdan_hf.data.prepared.preparation"
MEASUREMENTS = "ecgdan_hf.data.measure.measurements"
BEATS = "ecgdan_hf.data.simulate.simulated_beats"


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """A copy of the package's code, to change and to restore."""
    ignore = shutil.ignore_patterns("__pycache__", "*.csv")
    return shutil.copytree(PACKAGE, tmp_path_factory.mktemp("copy") / "ecgdan_hf", ignore=ignore)


@pytest.fixture(scope="module")
def digests(package):
    """The digest of each module before anything is changed."""
    return {module: code_digest.__wrapped__(module, package) for module in (ROWS, MEASUREMENTS, BEATS)}


def digest_with_changed(package, file, module):
    whole = (package / file).read_bytes()
    (package / file).write_bytes(whole + b"\n")
    try:
        return code_digest.__wrapped__(module, package)
    finally:
        (package / file).write_bytes(whole)


@pytest.mark.parametrize(
    ("module", "file"),
    [
        (ROWS, "data/prepared/preparation.py"),
        (ROWS, "data/prepared/record_file.py"),
        (ROWS, "data/formats.py"),
        (ROWS, "data/record.py"),
        (ROWS, "data/readers/vendor_sizes.py"),
        (ROWS, "model/feature_extraction_ecgdan.py"),
        (ROWS, "model/preparation_ecgdan.py"),
        (ROWS, "model/median_beat_ecgdan.py"),
        (MEASUREMENTS, "data/measure/delineation.py"),
        (BEATS, "data/simulate/premature_beats.py"),
        (BEATS, "model/waveform_danet.py"),
    ],
)
def test_changing_a_file_that_makes_rows_changes_the_digest(module, file, package, digests):
    assert digest_with_changed(package, file, module) != digests[module]


@pytest.mark.parametrize(
    "file",
    ["__init__.py", "data/splits.py", "data/sources/ptbxl.py", "data/check/page.py", "model/modeling_ecgdan.py"],
)
def test_changing_an_unrelated_file_leaves_the_digest(file, package, digests):
    assert digest_with_changed(package, file, ROWS) == digests[ROWS]


def test_relative_imports_and_those_inside_functions_count(package):
    (package / "data/new.py").write_text("def f():\n    from .deeper import g\n    return g\n")
    (package / "data/deeper.py").write_text("from ..model import leads_ecgdan\n")
    before = code_digest.__wrapped__("ecgdan_hf.data.new", package)
    for file in ("data/deeper.py", "model/leads_ecgdan.py"):
        assert digest_with_changed(package, file, "ecgdan_hf.data.new") != before


def test_the_digest_is_computed_once_for_a_process():
    code_digest.cache_clear()
    first = code_digest(ROWS)
    assert code_digest(ROWS) is first
    assert code_digest.cache_info().hits == 1
