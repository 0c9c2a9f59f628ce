"""Looks for what could name a person or a machine in everything that is about to be published.

Runs before every push, which it refuses, and after every bundle, which it warns of. It reads text files, the names of
files, and the texts inside binary ones: chunks of PNG, the header of safetensors, members of zip files (npz), schema
and text columns of Parquet, and printable text of any other (ONNX, PDF). It recognises forms, not names as such: give
the names and ids of a cohort as a file, and each is looked for. Messages show the first letters of what was found.
"""

import getpass
import io
import json
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

_FOLDERS = "home|Users|root|mnt|media|data|srv|var|tmp|opt|scratch|work|workspace|content|nfs|private|Volumes|usr|etc"
_MONTH = r"(?:jan|feb|mar|m[aä]r|apr|ma[iy]|jun|jul|aug|sep|o[ck]t|nov|de[cz])[a-z]*\.?"
_DAY, _NUMBER_OF_MONTH, _YEAR = r"(?:0?[1-9]|[12]\d|3[01])", r"(?:0?[1-9]|1[0-2])", r"(?:19|20)\d\d"
_NUMBERS = r"mrn|ssn|nhs|(?:patient|case|accession|insurance|social[ _-]?security)[ _-]?(?:id|no|nr|num|number)"
_NAMES = r"(?:patient|last|first|family|given|sur|physician|operator|referring)(?:[ _-]?s)?[ _-]?name|patient"
_KINDS = {
    "absolute path": re.compile(
        rf"(?<![\w.:/~-])(?:file://)?/(?:{_FOLDERS})/[^\s\"'`<>|)\],;]+|(?<![A-Za-z])[A-Za-z]:\\+[^\s\"'`<>|]+"
        r"|(?<!\\)\\\\\w[\w.-]*\\+\w[^\s\"']*|(?<![\w/])~/\w[^\s\"'`]*"
    ),
    "e-mail address": re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)*\.[A-Za-z]{2,}"),
    "date": re.compile(
        rf"(?<![\d./-]){_YEAR}([-/.]?)(?:0[1-9]|1[0-2])\1(?:0[1-9]|[12]\d|3[01])(?![\d.-]*\d)"
        rf"|(?<![\d.])(?:{_DAY}([./-]){_NUMBER_OF_MONTH}|{_NUMBER_OF_MONTH}([./-]){_DAY})(?:\2|\3){_YEAR}(?!\d)"
        rf"|\b{_DAY}\.? {_MONTH},? {_YEAR}\b|\b{_MONTH} {_DAY}(?:[a-z]{{2}})?,? {_YEAR}\b",
        re.IGNORECASE,
    ),
    "number of a person": re.compile(
        rf"(?<![A-Za-z])(?:{_NUMBERS})[\"'\s:=#_]{{1,5}}[A-Z]{{0,3}}\d[\d -]{{3,}}"
        r"|(?<![\d-])\d{3}-\d\d-\d{4}(?![\d-])",
        re.IGNORECASE,
    ),
    "name": re.compile(
        rf"\b[A-ZÀ-Þ][\w'-]{{2,}}\^[A-ZÀ-Þ][\w'-]{{2,}}"
        rf"|(?<![A-Za-z])(?i:{_NAMES})[\"']?\s*[:=]\s*[\"']?[A-ZÀ-Þ][\w'-]+[ ,^]+[A-ZÀ-Þ]"
    ),
}
_TEXT_IN_BINARY = re.compile(rb"[\x20-\x7e\xc3\x80-\xbf]{6,}")
_NUMBERS_ALONE = re.compile(rb"'descr': '[<>|=][biufc]\d")
"""Of the header of a NumPy array: it holds no text, and random digests look like anything."""
_WORD = re.compile(r"[\w^.-]+")
_FLOAT = re.compile(r"\d*\.\d+(?:e-?\d+)?")
_COMMON_USERS = (
    "root",
    "user",
    "admin",
    "ubuntu",
    "runner",
    "home",
    "guest",
    "default",
    "nobody",
    "test",
    "data",
    "model",
)
_SHORTEST_ID, _SHORTEST_NAME = 6, 4
_IDS = ("record_id", "patient_id")


@dataclass(frozen=True)
class Finding:
    """Something in a file that could identify.

    Attributes:
        file: relative to the folder.
        kind: what it looks like.
        text: its first letters.
    """

    file: str
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.file}: {self.kind} ({self.text})"


def find_identifiers(folder: str | Path, known: Sequence[str] = ()) -> list[Finding]:
    """Lists what could identify a person or a machine in the files of a folder.

    Args:
        folder: what is to be published.
        known: names and ids to look for, such as those of [`read_known`] and [`known_of_run`].

    Returns:
        Each form once for each file, in the order of the files' names.
    """
    folder, wanted = Path(folder), {text.strip() for text in known}
    found: dict[Finding, None] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and not _is_our_code(path)):
        name = path.relative_to(folder).as_posix()
        for text in (name, *_texts(path)):
            found |= {Finding(name, kind, _masked(each)): None for kind, each in _matches(text, wanted)}
    return list(found)


def check_identifiers(folder: str | Path, known: Sequence[str] = ()) -> None:
    """Refuses to publish a folder in which [`find_identifiers`] finds something.

    Raises:
        ValueError: the first findings, masked.
    """
    if found := find_identifiers(folder, known):
        raise ValueError(f"{folder}: not published; found {findings_in_words(found)}; remove them, then push again")


def findings_in_words(found: Sequence[Finding], most: int = 5) -> str:
    """The first findings in one line, and how many there are."""
    more = f" and {len(found) - most} more" if len(found) > most else ""
    return "; ".join(map(str, found[:most])) + more


def read_known(table: str | Path) -> list[str]:
    """Reads names and ids to look for: the cells of a CSV file or the lines of a text file.

    Raises:
        FileNotFoundError: no such file.
    """
    text = Path(table).read_text(encoding="utf-8", errors="replace")
    cells = {cell.strip().strip("\"'").strip() for line in text.splitlines() for cell in re.split(r"[,;\t]", line)}
    return sorted(cell for cell in cells if len(cell) >= _SHORTEST_NAME and not _FLOAT.fullmatch(cell))


def known_of_run(checkpoint: str | Path) -> list[str]:
    """The ids in the `predictions.csv` of a run that are long enough to be no count; empty without that file."""
    path = Path(checkpoint) / "predictions.csv"
    if not path.is_file():
        return []
    table = pd.read_csv(path, dtype=str, usecols=lambda name: name in _IDS)
    ids = {str(each) for name in table for each in table[name].dropna().unique()}
    return sorted(each for each in ids if len(each) >= _SHORTEST_ID and any(map(str.isdigit, each)))


def _matches(text: str, known: set[str]) -> Iterator[tuple[str, str]]:
    for kind, pattern in _KINDS.items():
        yield from ((kind, match.group()) for match in pattern.finditer(text))
    words = {word.strip(".-") for word in _WORD.findall(text)}
    words |= {part for word in words if not _FLOAT.fullmatch(word) for part in re.split(r"[._^-]", word)}
    yield from (("name or id of the data", word) for word in words & known)
    yield from (("name or id of the data", each) for each in known if " " in each and each in text)
    yield from (("name of your account", word) for word in words & _account())


def _account() -> set[str]:
    try:
        names = {getpass.getuser(), Path.home().name}
    except (OSError, KeyError, RuntimeError):  # a container without users
        return set()
    return {name for name in names if len(name) >= _SHORTEST_NAME and name.lower() not in _COMMON_USERS}


def _masked(text: str) -> str:
    shown = 6 if text.startswith(("/", "~", "\\")) or text[1:2] == ":" else 2
    return f"{text[:shown]}…, {len(text)} characters"


def _is_our_code(path: Path) -> bool:
    ours = Path(__file__).parents[1] / "model" / path.name
    return path.suffix == ".py" and ours.is_file() and ours.read_bytes() == path.read_bytes()


def _texts(path: Path) -> Iterator[str]:
    """What can be read in a file."""
    if path.suffix == ".safetensors":
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8).ljust(8, b"\0"))
            yield _strings_of_json(file.read(min(length, 2**27)).decode("utf-8", "replace"))
    elif path.suffix == ".parquet":
        yield from _of_parquet(path)
    else:
        yield from _of_content(path.read_bytes(), path.name)


def _of_content(content: bytes, name: str) -> Iterator[str]:
    if content.startswith(b"\x93NUMPY") and _NUMBERS_ALONE.search(content[:256]):
        return
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        yield from _of_png(content)
    elif content.startswith(b"PK\x03\x04"):
        with zipfile.ZipFile(io.BytesIO(content)) as members:
            for member in members.infolist():
                yield member.filename
                yield from _of_content(members.read(member), member.filename)
    elif b"\0" in content or (text := _decoded(content)) is None:
        yield "\n".join(run.decode("utf-8", "replace") for run in _TEXT_IN_BINARY.findall(content))
    elif name == "README.md":
        yield re.sub(r"^## Contact\n.*?(?=^## |\Z)", "", text, flags=re.MULTILINE | re.DOTALL)  # who wants to be asked
    elif name.endswith(".json"):
        yield _strings_of_json(text, without=("model",) if name == "tokenizer.json" else ())
    elif name not in ("vocab.txt", "merges.txt"):  # pieces of the words of a public language model
        yield text


def _decoded(content: bytes) -> str | None:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _strings_of_json(text: str, without: Sequence[str] = ()) -> str:
    """JSON with its escapes resolved; as it is where it is none."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return text
    if isinstance(content, dict):
        content = {name: value for name, value in content.items() if name not in without}
    return (
        json.dumps(content, ensure_ascii=False, indent=0)
        .replace('\\"', '"')
        .replace("\\\\", "\\")
        .replace("\\n", "\n")
    )


def _of_png(content: bytes) -> Iterator[str]:
    position = 8
    while position + 8 <= len(content):
        (length,), kind = struct.unpack(">I", content[position : position + 4]), content[position + 4 : position + 8]
        data = content[position + 8 : position + 8 + length]
        position += 12 + length
        if kind in (b"tEXt", b"iTXt", b"eXIf", b"zTXt"):
            yield data.replace(b"\0", b"\n").decode("utf-8", "replace")
            for start in range(len(data)) if kind in (b"zTXt", b"iTXt") else ():
                if data[start : start + 1] == b"\x78":
                    yield _inflated(data[start:])
        elif kind == b"IEND":
            yield content[position:].decode("latin-1")  # what was appended


def _inflated(content: bytes) -> str:
    try:
        return zlib.decompressobj().decompress(content, 2**20).decode("utf-8", "replace")
    except zlib.error:
        return ""


def _of_parquet(path: Path) -> Iterator[str]:
    """Names of columns, metadata, and all texts but the ids, which are pseudonyms or wanted."""
    file = pq.ParquetFile(path)
    schema = file.schema_arrow
    metadata = {**(schema.metadata or {}), **(file.metadata.metadata or {})}
    yield "\n".join([*schema.names, *(value.decode("utf-8", "replace") for value in metadata.values())])
    texts = [field.name for field in schema if _is_text(field.type) and field.name not in _IDS]
    for batch in file.iter_batches(columns=texts):
        for column in batch.columns:
            cells = column.flatten() if pa.types.is_list(column.type) else column
            yield "\n".join(cells.drop_null().unique().to_pylist())


def _is_text(kind: pa.DataType) -> bool:
    each = kind.value_type if pa.types.is_list(kind) else kind
    return bool(pa.types.is_string(each) or pa.types.is_large_string(each))
