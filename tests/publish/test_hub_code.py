"""What code may travel with the weights."""

from pathlib import Path

import pytest

import ecgdan_hf.model
from ecgdan_hf.publish.hub_code import HubCode

MODEL_FILES = sorted(path for path in Path(ecgdan_hf.model.__file__).parent.glob("*.py") if path.name != "__init__.py")


def write(folder: Path, **files: str) -> list[Path]:
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    return sorted(folder.glob("*.py"))


def test_the_code_of_this_package_may_travel() -> None:
    assert len(MODEL_FILES) >= 8
    entries = ["configuration_ecgdan", "modeling_ecgdan", "feature_extraction_ecgdan", "modeling_ecg_text"]
    pipelines = ["pipeline_base_ecgdan", "pipeline_survival_ecgdan", "pipeline_ecgdan"]
    HubCode(MODEL_FILES).check([*entries, *pipelines, "configuration_danet", "modeling_danet", "processing_ecgdan"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("from . import helper\n", r"model\.py, line 1: only 'from \.file import name' survives"),
        ("from ..helper import f\n", "only 'from .file import name' survives"),
        ("from .folder.helper import f\n", "only 'from .file import name' survives"),
        ("from .absent import f\n", r"imports \.absent, whose file does not travel with it"),
        ("from ecgdan_hf.model.helper import f\n", "imports ecgdan_hf, which a reader may not have"),
        ("def f():\n    import scipy.signal\n", "line 2: imports scipy, which a reader may not have; guard it"),
        ('"""Doc.\n\nfrom .absent import nothing\n"""\n', "would read an import of 'absent' in its text"),
        ('"""Doc.\n\nimport .absent\n"""\n', "would read an import of 'absent' in its text"),
    ],
)
def test_what_transformers_cannot_follow_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HubCode(write(tmp_path, model=text, helper="x = 1\n")).check(["model"])


def test_guarded_libraries_the_standard_library_and_neighbours_are_fine(tmp_path: Path) -> None:
    text = "import math\nimport torch\nfrom .helper import x\ntry:\n    import scipy\nexcept ImportError:\n    pass\n"
    HubCode(write(tmp_path, model=text, helper="x = 1\n")).check(["model"])


def test_an_entry_point_must_name_the_neighbours_of_its_neighbours(tmp_path: Path) -> None:
    files = write(tmp_path, model="from .helper import x\n", helper="from .deep import x\n", deep="x = 1\n")
    with pytest.raises(ValueError, match=r"model\.py: needs deep\.py through a neighbour; import it directly"):
        HubCode(files).check(["model"])
    HubCode(files).check(["helper", "deep"])
    with pytest.raises(ValueError, match="auto_map: names the module absent"):
        HubCode(files).check(["absent"])


def test_code_that_is_no_python_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"model\.py, line 1: not valid Python") as caught:
        HubCode(write(tmp_path, model="def f(:\n")).check(["model"])
    assert "\n" not in str(caught.value)


def test_the_code_revision_changes_with_content_and_name_and_with_nothing_else(tmp_path: Path) -> None:
    files = write(tmp_path, a="x = 1\n", b="y = 2\n")
    first = HubCode(files).revision
    assert first == HubCode(reversed(files)).revision
    (tmp_path / "b.py").write_text("y = 3\n", encoding="utf-8")
    assert HubCode(files).revision != first
    (tmp_path / "b.py").write_text("y = 2\n", encoding="utf-8")
    (tmp_path / "b.py").rename(tmp_path / "c.py")
    assert HubCode(sorted(tmp_path.glob("*.py"))).revision != first
