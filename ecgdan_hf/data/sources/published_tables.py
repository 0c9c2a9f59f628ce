"""CSV tables of public sources: the columns a source needs, with their types."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from ecgdan_hf.data.readers.declared import one_line


def read_published(
    path: Path, source: str, id_column: str, columns: Mapping[str, str], optional: Mapping[str, str] | None = None
) -> pd.DataFrame:
    """Reads the required and optional columns of a published CSV (or `.csv.gz`), with their pandas types.

    Raises:
        FileNotFoundError: no such file; the message names the dataset `source`.
        ValueError: not a CSV, a missing column, a value not of its column's type, or a repeated value of `id_column`.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected the folder of {source} as it is published")
    types = {**columns, **(optional or {})}
    try:
        table = pd.read_csv(path, usecols=lambda name: name in types, low_memory=False)
    except (ValueError, OSError, EOFError, pd.errors.ParserError) as error:
        raise ValueError(f"{path}: not a readable CSV: {one_line(error)}") from error
    absent = [name for name in columns if name not in table]
    if absent:
        raise ValueError(f"{path}: expected the columns of {source}, missing {', '.join(absent)}")
    for name in table.columns:
        try:
            table[name] = table[name].astype(pd.api.types.pandas_dtype(types[name]))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}: {name}: expected {types[name]} values: {one_line(error)}") from error
    twice = table[id_column][table[id_column].duplicated()]
    if len(twice):
        raise ValueError(f"{path}: {id_column}: expected each record once, got {twice.iloc[0]} more than once")
    return table
