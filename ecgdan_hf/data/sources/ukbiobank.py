"""UK Biobank's resting ECGs (field 20205): one XML per participant and visit, loose or in zips.

Files are named `EID_20205_INSTANCE_ARRAY.xml`. The EID is the participant's number in one project and never appears in
a message. Outcomes are in another table: see `ukb_cohort`.
"""

import logging
import re
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from datetime import date
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

import pandas as pd

from ecgdan_hf.data.readers.cardiosoft import observation_date
from ecgdan_hf.data.readers.zips import DAMAGED, ZipReader

logger = logging.getLogger(__name__)

NAME = re.compile(r"(?P<eid>\d+)_20205_(?P<instance>\d+)_(?P<array>\d+)", re.IGNORECASE)
_MEANT = re.compile(r"\.(xml|zip)$|_20205_", re.IGNORECASE)
_NO_XML, _ZIP_IN_ZIP = "neither XML nor zip", "zips inside a zip"
HEAD_BYTES = 4096  # the recording date is among the first elements


def read_ukbiobank(data_dir: str | Path) -> pd.DataFrame:
    """Returns one row per ECG, sorted by participant, instance and array.

    Columns: `record_id` (`EID_20205_INSTANCE_ARRAY`), `patient_id` (EID), `file`, `instance`, `array`, and `member`,
    the name of the entry, if there are zips.

    Args:
        data_dir: a folder, searched through its sub-folders, with `EID_20205_INSTANCE_ARRAY.xml` or zips of such, or
            one zip. Of a zip with a single XML, the zip may have that name instead. Other files are left out, with one
            warning that counts them.
    """
    data_dir = Path(data_dir)
    if not data_dir.exists():
        raise FileNotFoundError(f"{data_dir}: no such folder")
    rows: list[dict[str, Any]] = []
    kinds = ("exercise ECGs (field 6025)", "XML of another name", _NO_XML, _ZIP_IN_ZIP, "zips that cannot be opened")
    left_out = dict.fromkeys(kinds, 0)
    for file in _files(data_dir):
        try:
            entries = _entries(file)
        except DAMAGED:
            left_out["zips that cannot be opened"] += 1
            continue
        for name, member in entries:
            if name.suffix.lower() == ".xml" and (named := NAME.fullmatch(name.stem)):
                rows.append(_row(name.stem, named, file, member))
            else:
                left_out[_why_not(name)] += 1
    counts = ", ".join(f"{count} {kind}" for kind, count in left_out.items() if count)
    if not rows:
        found = counts or "no XML and no zip"
        raise FileNotFoundError(f"{data_dir}: expected EID_20205_INSTANCE_ARRAY.xml, loose or in zips, found {found}")
    if counts:
        logger.warning("%s: left out, not named EID_20205_INSTANCE_ARRAY.xml: %s", data_dir, counts)
    return _table(rows, data_dir)


def in_zips(folder: Path) -> bool:
    """Whether a zip below a folder holds ECGs with UK Biobank's names."""
    for file in folder.rglob("*.zip"):
        with suppress(ValueError):
            if any(NAME.fullmatch(PurePosixPath(entry.filename).stem) for entry in ZipReader(file).entries()):
                return True
    return False


def observation_dates(table: pd.DataFrame) -> list[date | None]:
    """The recording day in each file of the table of `read_ukbiobank`; None if not stated or not readable."""
    members = table["member"] if "member" in table else pd.Series(None, index=table.index, dtype=object)
    return [_observed(Path(file), member) for file, member in zip(table["file"], members, strict=True)]


def _observed(file: Path, member: Any) -> date | None:
    try:
        if not isinstance(member, str):
            with file.open("rb") as loose:
                return observation_date(loose.read(HEAD_BYTES))
        packed = ZipReader(file)
        return observation_date(packed.read(packed.entry(member), HEAD_BYTES))
    except (OSError, ValueError):
        return None


def _files(data_dir: Path) -> Iterator[Path]:
    if data_dir.is_file():
        yield data_dir
        return
    for file in sorted(data_dir.rglob("*")):
        hidden = any(part.startswith(".") for part in file.relative_to(data_dir).parts)
        if _MEANT.search(file.name) and not hidden and file.is_file():
            yield file


def _entries(file: Path) -> list[tuple[PurePath, str | None]]:
    """Name and, in a zip, entry of each file that seems to be an ECG."""
    if _MEANT.search(file.name) and file.suffix.lower() != ".zip":
        return [(file, None)]
    with zipfile.ZipFile(file) as archive:
        members = [name for name in archive.namelist() if not name.endswith("/") and not _is_hidden(name)]
    members = [name for name in members if _MEANT.search(PurePosixPath(name).name)]
    names = [PurePosixPath(name) for name in members]
    if len(names) == 1 and not NAME.fullmatch(names[0].stem) and NAME.fullmatch(file.stem):
        names = [PurePosixPath(file.stem).with_suffix(names[0].suffix)]
    return list(zip(names, members, strict=True))


def _why_not(name: PurePath) -> str:
    if name.suffix.lower() == ".zip":
        return _ZIP_IN_ZIP
    if name.suffix.lower() != ".xml":
        return _NO_XML
    return "exercise ECGs (field 6025)" if "_6025_" in name.stem else "XML of another name"


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
