"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with real recordings and golden outputs; tests that need it skip where it is absent."""
    folder = Path(os.environ.get("ECGDAN_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    if not (folder / "golden").is_dir():
        pytest.skip(
            f"needs the recordings and golden outputs of {folder.name}/ beside the checkout, or $ECGDAN_SHARED"
        )
    return folder
