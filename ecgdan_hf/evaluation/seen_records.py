"""The records that a checkpoint has seen, recognised by their signals: the leakage guard that no path walks around.

A digest is made of each quarter of a prepared signal, of coarse means, so that rounding changes none. It says nothing
of a person, but who has a recording can compute its digest, and so learn that it was trained on. The digests travel
with the weights in `seen_records.npz`, those of the checkpoints that they started from among them. A copy of the data,
another path to it, a bundle, a missing recipe or missing leads change nothing; a recording that was scaled, cut or
filtered otherwise is not recognised. Must not import protocols.
"""

import hashlib
import secrets
import warnings
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
_QUARTERS, _BLOCKS, _LEAD_BLOCKS = 4, 8, 96
_STEP = 0.1
"""Of the rounding, in the units of the network's input: far above differences between machines."""
_TOLERATED_SHARE = 0.005
"""Of test records with the signal of a training record; sources have a few recordings twice."""
Digests = npt.NDArray[np.uint64]
LeadDigests = npt.NDArray[np.uint32]


@dataclass(frozen=True)
class SeenRecords:
    """The records of a checkpoint.

    Attributes:
        key: of the digests, drawn for the first checkpoint of a chain, so that those of two chains cannot be compared.
        trained, chosen: digests (n, 4) of records whose signals were trained on, by it or by a checkpoint it started
            from, and of those that chose its epoch. 0: a quarter without signal.
        is_complete: whether the records of every checkpoint it started from are known.
        trained_leads, chosen_leads: digests (n,) of the single leads of these records; None where they are not known,
            as of checkpoints from before this was written.
    """

    key: bytes
    trained: Digests
    chosen: Digests
    is_complete: bool
    trained_leads: LeadDigests | None = None
    chosen_leads: LeadDigests | None = None

    @classmethod
    def of(cls, parts: Mapping[str, Any], start: str | None) -> "SeenRecords":
        """Those of a run: the rows `train` and `valid` with `input_values`, and of the checkpoint it started from."""
        before = None if start is None else cls.read(start)
        key = secrets.token_bytes(16) if before is None else before.key
        digests = {name: _digests(parts[name], key) if name in parts else (_NONE, _NO_LEADS) for name in _PARTS}
        (trained, leads), (chosen, chosen_leads) = digests["train"], digests["valid"]
        complete = start is None or (before is not None and before.is_complete)
        if before is not None:
            trained = np.concatenate([trained, before.trained])
        if start is not None:
            earlier = None if before is None else before.trained_leads
            known = None if earlier is None else np.concatenate([_flat(leads), earlier])
        else:
            known = _flat(leads)
        known = None if known is None else np.unique(known)
        return cls(key, np.unique(trained, axis=0), chosen, complete, known, _flat(chosen_leads))

    def write(self, folder: Path) -> None:
        """Writes `seen_records.npz`."""
        arrays: dict[str, Any] = {"trained": self.trained, "chosen": self.chosen, "is_complete": self.is_complete}
        leads = {"trained_leads": self.trained_leads, "chosen_leads": self.chosen_leads}
        arrays |= {name: value for name, value in leads.items() if value is not None}
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
                leads = (np.asarray(found[name], np.uint32) if name in found else None for name in _LEADS)
                return cls(found["key"].tobytes(), trained, chosen, bool(found["is_complete"]), *leads)
        except Exception as error:  # what a damaged archive causes, of zipfile, zlib or numpy
            raise ValueError(f"{path}: expected the records a checkpoint has seen, found a damaged file") from error

    def count(self, rows: Any, with_chosen: bool = True) -> int:
        """How many of the rows have the signal of a record that was seen."""
        given, leads = _digests(rows, self.key)
        known, present = np.concatenate([self.trained, *([self.chosen] if with_chosen else [])]), given != 0
        matches = np.column_stack([np.isin(given[:, part], known[:, part]) for part in range(_QUARTERS)]) & present
        wanted = np.clip(present.sum(1), 1, 2)  # a digest of 64 bits is no coincidence, one rounded otherwise is rare
        whole = matches.sum(1) >= wanted
        if self.trained_leads is None or self.chosen_leads is None:
            return int(whole.sum())
        known_leads = np.concatenate([self.trained_leads, *([self.chosen_leads] if with_chosen else [])])
        in_leads = (np.isin(leads, known_leads) & (leads != 0)).sum(1) >= np.clip((leads != 0).sum(1), 1, 2)
        return int((whole | in_leads).sum())

    def unknown(self, rows: Any) -> int:
        """How many of the rows lack leads that others have, where the digests cannot tell whether they were seen."""
        if self.trained_leads is not None:
            return 0
        present = (_digests(rows, self.key)[1] != 0).sum(1)
        return int((present < rows.with_format("numpy")[0]["input_values"].shape[0]).sum())


_NONE: Digests = np.zeros((0, _QUARTERS), dtype=np.uint64)
_NO_LEADS: LeadDigests = np.zeros((0, 0), dtype=np.uint32)
_PARTS, _LEADS = ("train", "valid"), ("trained_leads", "chosen_leads")


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
    unknown = seen.unknown(rows)
    text += f"; {unknown} more lack leads, so that it could not be checked" if unknown else ""
    if found or unknown or not seen.is_complete:
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


def _digests(rows: Any, key: bytes) -> tuple[Digests, LeadDigests]:
    """Keyed digests of the quarters (n, 4) of each signal, and of its leads (n, leads); 0 where nothing changes."""
    quarters, leads = [_NONE], []
    for batch in rows.with_format("numpy", columns=["input_values"]).iter(batch_size=256):
        values = np.asarray(batch["input_values"], dtype=np.float64)
        quarters.append(np.array([_digests_of(signal, key) for signal in values], dtype=np.uint64))
        leads.append(np.array([_digests_of_leads(signal, key) for signal in values], dtype=np.uint32))
    return np.concatenate(quarters), np.concatenate(leads) if leads else _NO_LEADS


def _digests_of(signal: npt.NDArray[np.float64], key: bytes) -> list[int]:
    """Digests of the quarters of one signal (leads, samples). The fewer leads there are, the finer each is read."""
    leads, samples = signal.shape
    present = max(int((np.ptp(signal, axis=1) > 0).sum()), 1)
    coarse = _coarse(signal, min(_BLOCKS * leads // present, samples // _QUARTERS)).transpose(1, 0, 2)
    return [0 if (quarter == quarter[:, :1]).all() else _digest(quarter.tobytes(), key) for quarter in coarse]


def _digests_of_leads(signal: npt.NDArray[np.float64], key: bytes) -> list[int]:
    """Digests of 32 bits of the second quarter of each lead; of the next one if nothing changes in that."""
    coarse = _coarse(signal, min(_LEAD_BLOCKS, signal.shape[1] // _QUARTERS))  # (leads, quarters, blocks)
    found = []
    for number, lead in enumerate(coarse):
        quarter = next((lead[part] for part in (1, 2, 3, 0) if np.ptp(lead[part]) > 0), None)
        content = None if quarter is None else bytes([number]) + quarter.tobytes()
        found.append(0 if content is None else _digest(content, key) >> 32)
    return found


def _coarse(signal: npt.NDArray[np.float64], blocks: int) -> npt.NDArray[np.int32]:
    """Rounded means (leads, quarters, blocks) of a signal (leads, samples)."""
    leads, samples = signal.shape
    block = samples // (_QUARTERS * blocks)
    kept = signal[:, : _QUARTERS * blocks * block]
    means = kept.reshape(leads, _QUARTERS, blocks, block).mean(-1)
    coarse: npt.NDArray[np.int32] = np.round(means / _STEP).astype("<i4")
    return coarse


def _flat(leads: LeadDigests) -> LeadDigests:
    return np.unique(leads[leads != 0])


def _digest(content: bytes, key: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(content, digest_size=8, key=key).digest(), "little")
