"""UK Biobank's resting ECGs (field 20205): one XML a participant and visit, loose or in zips.

Files are named `EID_20205_INSTANCE_ARRAY.xml`. The EID is the participant's number in one project; it is never put in
a message here, only counted. What became of the participants is in another table: see `ukb_cohort`.
"""

import logging
import re
import zipfile
import zlib
from collections.abc import Iterator
from datetime import date
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from ecgdan_hf.data.cardiosoft import observation_date

logger = logging.getLogger(__name__)

NAME = re.compile(r"(?P<eid>\d+)_20205_(?P<instance>\d+)_(?P<array>\d+)", re.IGNORECASE)
HEAD_BYTES = 4096  # the date of the recording is among the first elements


def read_table(data_dir: str | Path) -> pd.DataFrame:
    """One row per ECG, by participant, instance and array.

    Args:
        data_dir: a folder, searched through its sub-folders, with `EID_20205_INSTANCE_ARRAY.xml` or zips of such, or
            one zip. A zip with a single XML of another name may carry the name itself. Other files are left out, with
            one warning that counts them.

    Returns:
        Columns `record_id` (`EID_20205_INSTANCE_ARRAY`), `patient_id` (EID), `file`, `instance`, `array`, and
        `member`, the name of the entry, where there are zips.

    Raises:
        FileNotFoundError: no such folder, or no such file in it.
        ValueError: a record lies there twice.
    """
    data_dir = Path(data_dir)
    if not data_dir.exists():
        raise FileNotFoundError(f"{data_dir}: no such folder")
    rows: list[dict[str, Any]] = []
    left_out = {"exercise ECGs (field 6025)": 0, "XML of another name": 0, "zips that cannot be opened": 0}
    for file in _files(data_dir):
        try:
            entries = _entries(file)
        except (OSError, zipfile.BadZipFile):
            left_out["zips that cannot be opened"] += 1
            continue
        for stem, member in entries:
            if named := NAME.fullmatch(stem):
                rows.append(_row(stem, named, file, member))
            else:
                kind = "exercise ECGs (field 6025)" if "_6025_" in stem else "XML of another name"
                left_out[kind] += 1
    counts = ", ".join(f"{count} {kind}" for kind, count in left_out.items() if count)
    if not rows:
        found = counts or "no XML and no zip"
        raise FileNotFoundError(f"{data_dir}: expected EID_20205_INSTANCE_ARRAY.xml, loose or in zips, found {found}")
    if counts:
        logger.warning("%s: left out, not named EID_20205_INSTANCE_ARRAY.xml: %s", data_dir, counts)
    return _table(rows, data_dir)


def observation_dates(table: pd.DataFrame) -> list[date | None]:
    """The day that each file says it was recorded; None where it does not or cannot be read.

    Args:
        table: as `read_table` gives it.
    """
    members = table["member"] if "member" in table else pd.Series(None, index=table.index, dtype=object)
    return [_observed(file, member) for file, member in zip(table["file"], members, strict=True)]


def _observed(file: str, member: Any) -> date | None:
    try:
        if not isinstance(member, str):
            with open(file, "rb") as loose:
                return observation_date(loose.read(HEAD_BYTES))
        with zipfile.ZipFile(file) as archive, archive.open(member) as entry:
            return observation_date(entry.read(HEAD_BYTES))
    except (OSError, RuntimeError, KeyError, zipfile.BadZipFile, zlib.error):
        return None


def _files(data_dir: Path) -> Iterator[Path]:
    if data_dir.is_file():
        yield data_dir
        return
    for file in sorted(data_dir.rglob("*")):
        hidden = any(part.startswith(".") for part in file.relative_to(data_dir).parts)
        if file.suffix.lower() in (".xml", ".zip") and not hidden and file.is_file():
            yield file


def _entries(file: Path) -> list[tuple[str, str | None]]:
    """Stem and, in a zip, entry of each XML in a file."""
    if file.suffix.lower() == ".xml":
        return [(file.stem, None)]
    with zipfile.ZipFile(file) as archive:
        members = [name for name in archive.namelist() if name.lower().endswith(".xml") and not _is_hidden(name)]
    stems = [PurePosixPath(name).stem for name in members]
    if len(stems) == 1 and not NAME.fullmatch(stems[0]) and NAME.fullmatch(file.stem):
        stems = [file.stem]
    return list(zip(stems, members, strict=True))


def _is_hidden(member: str) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in PurePosixPath(member).parts)


def _row(stem: str, named: re.Match[str], file: Path, member: str | None) -> dict[str, Any]:
    return {
        "record_id": stem,
        "patient_id": named["eid"],
        "file": str(file),
        "member": member,
        "instance": int(named["instance"]),
        "array": int(named["array"]),
    }


def _table(rows: list[dict[str, Any]], data_dir: Path) -> pd.DataFrame:
    table = pd.DataFrame(rows)
    twice = int(table["record_id"].duplicated().sum())
    if twice:
        raise ValueError(
            f"{data_dir}: expected each ECG once, got {twice} more than once; remove loose or zipped copies"
        )
    if table["member"].isna().all():
        table = table.drop(columns="member")
    order = table.assign(eid=table["patient_id"].astype(int)).sort_values(["eid", "instance", "array"]).index
    return table.loc[order].reset_index(drop=True)
