"""The demo, with a cohort too small to learn from but large enough to walk the whole way."""

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import pytest

from ecgdan_hf.cli import demo
from ecgdan_hf.training.arguments.fields import FinetuneArguments
from ecgdan_hf.training.arguments.options import resolve


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The demo's folder and what it printed, after 3 epochs instead of 40."""
    folder, printed = tmp_path_factory.mktemp("clone") / "runs" / "demo", io.StringIO()

    def shorter(kind: type, recipe: str, flags: dict[str, Any]) -> FinetuneArguments:
        return resolve(kind, recipe, {**flags, "epochs": 3})

    with contextlib.redirect_stdout(printed), pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "resolve", shorter)
        demo.VERBS["demo"](folder, n=70, seed=0, overwrite=False)
    return folder, printed.getvalue().splitlines()


def test_the_demo_leaves_a_page_whose_figures_exist(page: tuple[Path, list[str]]):
    folder, _ = page
    text = (folder / "report.md").read_text(encoding="utf-8")
    for figure in ("kaplan_meier.png", "explained.png"):
        assert f"({figure})" in text
        assert (folder / figure).stat().st_size > 10_000
    assert "{" not in text
    assert (folder / "model" / "model.safetensors").is_file()


def test_every_number_of_the_demo_is_called_simulated(page: tuple[Path, list[str]]):
    folder, said = page
    numbers = [line for line in said if "C-index" in line]
    assert len(numbers) == 4
    assert all(line.startswith("simulated outcome") for line in numbers)
    models = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["models"]
    assert list(models) == ["this network", "age and sex", "random encoder, linear", "attainable (true hazard)"]


def test_an_earlier_demo_is_replaced_only_when_asked(page: tuple[Path, list[str]], tmp_path: Path):
    folder, _ = page
    with pytest.raises(ValueError, match="give --overwrite to replace it"):
        demo.VERBS["demo"](folder, n=70, seed=0, overwrite=False)
    (tmp_path / "mine.txt").write_text("not a demo", encoding="utf-8")
    with pytest.raises(ValueError, match="found other files"):
        demo.VERBS["demo"](tmp_path, n=70, seed=0, overwrite=True)
