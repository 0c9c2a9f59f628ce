"""Fixtures shared by all tests."""

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from warm import WARM, clean_processes_by

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.fsync = lambda descriptor: None  # tests kill processes, but no power is lost: waiting for disks proves nothing


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with real recordings and golden outputs; tests that need it skip where it is absent."""
    folder = Path(os.environ.get("ECGDAN_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    if not (folder / "golden").is_dir():
        pytest.skip(
            f"needs the recordings and golden outputs of {folder.name}/ beside the checkout, or $ECGDAN_SHARED"
        )
    return folder


@pytest.fixture(scope="session", autouse=True)
def bundles_proved_by_warm_processes() -> Iterator[None]:
    """Saves each proof of a bundle the seconds of importing torch."""
    with clean_processes_by(WARM.run):
        yield
    WARM.close()


@pytest.fixture(scope="session")
def evaluate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The library, with a module cache of its own: a process finds modules only where it found the first of them."""
    import evaluate

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate.config, "HF_MODULES_CACHE", str(tmp_path_factory.mktemp("modules")))
        patch.setattr(evaluate.config, "HF_EVALUATE_OFFLINE", True)
        yield evaluate


def pytest_collection_finish() -> None:
    """Excludes what has been imported from garbage collection, which otherwise takes a third of the time."""
    gc.collect()
    gc.freeze()
