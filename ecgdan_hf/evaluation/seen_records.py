"""The records that a checkpoint has seen, recognised by their signals: the leakage guard that no path walks around.

A digest is made of each quarter of a prepared signal, of coarse means, so that rounding changes none. It says nothing
of a person, and only who has the recording can compute it. The digests travel with the weights in `seen_records.npz`,
those of the checkpoints that they started from among them. A copy of the data, another path to it, a bundle or a
missing recipe change nothing; a recording that was scaled, cut or filtered otherwise is not recognised. Must not
import protocols.
"""

import hashlib
import secrets
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from huggingface_hub import hf_hub_download

from ecgdan_hf.inference.checkpoints import repository_and_revision

FILE = "seen_records.npz"
UNKNOWN = "could not be checked: the checkpoint does not say which records it has seen"
_QUARTERS, _BLOCKS = 4, 8
_STEP = 0.1
"""Of the rounding, in the units of the network's input: far above differences between machines."""
_TOLERATED_SHARE = 0.005
"""Of test records with the signal of a training record; sources have a few recordings twice."""
Digests = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class SeenRecords:
    """The records of a checkpoint.

    Attributes:
        key: of the digests, drawn for the first checkpoint of a chain, so that those of two chains cannot be compared.
        trained, chosen: digests (n, 4) of records whose signals were trained on, by it or by a checkpoint it started
            from, and of those that chose its epoch. 0: a quarter without signal.
        is_complete: whether the records of every checkpoint it started from are known.
    """

    key: bytes
    trained: Digests
    chosen: Digests
    is_complete: bool

    @classmethod
    def of(cls, parts: Mapping[str, Any], start: str | None) -> "SeenRecords":
        """Those of a run: the rows `train` and `valid` with `input_values`, and of the checkpoint it started from."""
        before = None if start is None else cls.read(start)
        key = secrets.token_bytes(16) if before is None else before.key
        trained, chosen = (_digests(parts[name], key) if name in parts else _NONE for name in ("train", "valid"))
        earlier = _NONE if before is None else before.trained
        complete = start is None or (before is not None and before.is_complete)
        return cls(key, np.unique(np.concatenate([trained, earlier]), axis=0), chosen, complete)

    def write(self, folder: Path) -> None:
        """Writes `seen_records.npz`."""
        arrays: dict[str, Any] = {"trained": self.trained, "chosen": self.chosen, "is_complete": self.is_complete}
        np.savez_compressed(folder / FILE, key=np.frombuffer(self.key, np.uint8), **arrays)

    @classmethod
    def read(cls, checkpoint: str) -> "SeenRecords | None":
        """Those of a checkpoint, a folder or a name on the Hub; None for one that does not say.

        Raises:
            ValueError: a damaged file.
        """
        path = _file_of(checkpoint)
        if path is None:
            return None
        try:
            with np.load(path, allow_pickle=False) as found:
                trained, chosen = (np.asarray(found[part], np.uint64) for part in ("trained", "chosen"))
                return cls(found["key"].tobytes(), trained, chosen, bool(found["is_complete"]))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path}: expected the records a checkpoint has seen, found a damaged file") from error

    def count(self, rows: Any, with_chosen: bool = True) -> int:
        """How many of the rows have the signal of a record that was seen."""
        given, seen = _digests(rows, self.key), [self.trained, *([self.chosen] if with_chosen else [])]
        known, present = np.concatenate(seen), given != 0
        matches = np.column_stack([np.isin(given[:, part], known[:, part]) for part in range(_QUARTERS)]) & present
        wanted = np.clip(present.sum(1), 1, 2)  # a digest of 64 bits is no coincidence, one rounded otherwise is rare
        return int((matches.sum(1) >= wanted).sum())


_NONE: Digests = np.zeros((0, _QUARTERS), dtype=np.uint64)


def check_records_unseen(checkpoint: str, rows: Any, with_chosen: bool = True) -> str:
    """Refuses to evaluate a checkpoint on records that it was trained on, wherever they lie.

    Args:
        checkpoint: folder or Hub name.
        rows: the test rows, with `input_values` by the checkpoint's feature extractor.
        with_chosen: records that chose its epoch are refused too.

    Returns:
        What was found, for reports.

    Raises:
        ValueError: more test records than duplicates in a source explain have the signal of one that it has seen.
    """
    seen = SeenRecords.read(checkpoint)
    if seen is None:
        warnings.warn(f"{checkpoint}: whether it was trained on test records {UNKNOWN}", stacklevel=2)
        return UNKNOWN
    found, total = seen.count(rows, with_chosen), len(rows)
    if found > _TOLERATED_SHARE * total:
        raise ValueError(
            f"{checkpoint}: was trained on {found} of {total} test records, recognised by their signals; choose test "
            "records it has not seen"
        )
    text = f"{found} of {total} test records have the signal of a record that it has seen"
    text += "" if seen.is_complete else "; the records of a checkpoint it started from are not known"
    if found or not seen.is_complete:
        warnings.warn(f"{checkpoint}: {text}", stacklevel=2)
    return text


def _file_of(checkpoint: str) -> Path | None:
    """The file of a folder or of a repository on the Hub; None where it has none or cannot be asked."""
    name, revision = repository_and_revision(checkpoint)
    if Path(name).is_dir():
        return Path(name) / FILE if (Path(name) / FILE).is_file() else None
    try:
        return Path(hf_hub_download(name, FILE, revision=revision))
    except (OSError, ValueError):  # no such file, no connection, no such name
        return None


def _digests(rows: Any, key: bytes) -> Digests:
    """Keyed digests (n, 4) of the quarters of each signal; 0 for a quarter without any change."""
    found = [_NONE]
    for batch in rows.with_format("numpy", columns=["input_values"]).iter(batch_size=256):
        values = np.asarray(batch["input_values"], dtype=np.float64)
        found.append(np.array([_digests_of(signal, key) for signal in values], dtype=np.uint64))
    return np.concatenate(found)


def _digests_of(signal: npt.NDArray[np.float64], key: bytes) -> list[int]:
    """Digests of the quarters of one signal (leads, samples). The fewer leads there are, the finer each is read."""
    leads, samples = signal.shape
    present = max(int((np.ptp(signal, axis=1) > 0).sum()), 1)
    blocks = min(_BLOCKS * leads // present, samples // _QUARTERS)
    block = samples // (_QUARTERS * blocks)
    kept = signal[:, : _QUARTERS * blocks * block]
    means = kept.reshape(leads, _QUARTERS, blocks, block).mean(-1)
    coarse = np.round(means / _STEP).astype("<i4").transpose(1, 0, 2)  # (quarters, leads, blocks)
    return [0 if (quarter == quarter[:, :1]).all() else _digest(quarter.tobytes(), key) for quarter in coarse]


def _digest(content: bytes, key: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(content, digest_size=8, key=key).digest(), "little")
