"""PTB-XL in its official folder layout, as published on PhysioNet (Wagner et al., Scientific Data 7:154, 2020).

Expects `ptbxl_database.csv`, `scp_statements.csv` and the signals of one of the two rates (WFDB format 16 or 516);
optionally the median beats of PTB-XL+ (Strodthoff et al., Scientific Data 10:279, 2023) in `ptb-xl-plus/`, a folder
inside the folder or next to it. Any version: what version 1.0.3 removed is left out of the older ones.
"""

import json
import logging
from pathlib import Path

import pandas as pd

from ecgdan_hf.data.record import scp_likelihoods
from ecgdan_hf.data.sources.published_tables import read_published
from ecgdan_hf.data.text.statements import read_statements

SUPERCLASSES = ("NORM", "MI", "STTC", "CD", "HYP")
LABEL_LEVELS = ("superclass", "subclass", "statement")
DATABASE_NAME = "ptbxl_database.csv"
MEDIAN_PATTERN = "median_beats/12sl/*/*[0-9]_medians.hea"
DUPLICATES = frozenset(
    {
        *(137, 139, 140, 141, 142, 143, 145, 456, 458, 459, 461, 462, 2506, 2511, 3795, 3798, 3800, 3801, 3832),
        *(5817, 7777, 7779, 7782, 9821, 9825, 9888, 11810, 11814, 11815, 11817, 11838, 13791, 13793, 13796, 13797),
        *(13799, 15742, 18150),
    }
)
"""The 38 `ecg_id` of versions up to 1.0.2 that 1.0.3 no longer has (21,837 - 21,799): copies of other records, some
under another patient in another fold (https://doi.org/10.13026/kfzx-aw45)."""
AGE_OVER_89 = 300  # the source's code
AGE_OVER_89_YEARS = 95.0

logger = logging.getLogger(__name__)

_FILE_COLUMNS = {500: "filename_hr", 100: "filename_lr"}
_COLUMNS = {
    **{"ecg_id": "int64", "patient_id": "int64", "age": "float64", "sex": "float64", "report": "object"},
    **{"scp_codes": "str", "strat_fold": "int64", **dict.fromkeys(_FILE_COLUMNS.values(), "str")},
}
_SEX = {0: "male", 1: "female"}


def read_ptbxl(data_dir: str | Path, sampling_rate: int = 500, label_level: str = "superclass") -> pd.DataFrame:
    """Returns one row per record of PTB-XL, with `file` at 500 or 100 Hz.

    Columns: `record_id, patient_id, file, sampling_rate, age, sex, fold, report, scp_codes, labels`, and `median_file`
    (12SL's median beat) if PTB-XL+ is present. Age 300, the source's code for "over 89", becomes 95 years.
    `DUPLICATES` are left out and counted in a warning.

    `table.attrs["label_names"]` has all label names in order.

    Args:
        data_dir: folder with `ptbxl_database.csv`.
        sampling_rate: 500 or 100 Hz.
        label_level: `"superclass"` (5 names), `"subclass"` (23) or `"statement"` (71). A statement counts at any
            likelihood, including 0, which in this source means "not stated".
    """
    data_dir = Path(data_dir)
    if sampling_rate not in _FILE_COLUMNS:
        raise ValueError(f"sampling_rate: PTB-XL is published at 500 and 100 Hz, got {sampling_rate}")
    labels = codes_by_label(read_statements(data_dir), label_level)
    database = _without_duplicates(read_published(data_dir / DATABASE_NAME, "PTB-XL", "ecg_id", _COLUMNS), data_dir)
    try:
        codes = [scp_likelihoods(text) for text in database["scp_codes"]]
    except ValueError as error:
        raise ValueError(f"{data_dir / DATABASE_NAME}: {error}") from error
    table = pd.DataFrame(
        {
            "record_id": database["ecg_id"].astype(str),
            "patient_id": database["patient_id"].astype(str),
            "file": _files(data_dir, database[_FILE_COLUMNS[sampling_rate]], sampling_rate),
            "sampling_rate": sampling_rate,
            "age": database["age"].replace(AGE_OVER_89, AGE_OVER_89_YEARS),
            "sex": [_SEX.get(sex) for sex in database["sex"]],
            "fold": database["strat_fold"],
            "report": database["report"].fillna("").astype(str),
            "scp_codes": [json.dumps(code) for code in codes],
            "labels": [[name for name in labels if not code.keys().isdisjoint(labels[name])] for code in codes],
        }
    )
    if medians := _median_files(data_dir):
        table["median_file"] = database["ecg_id"].map(medians)
    table.attrs["label_names"] = list(labels)
    return table


def codes_by_label(statements: pd.DataFrame, label_level: str) -> dict[str, list[str]]:
    """The SCP codes of each label of a level, from `scp_statements.csv`; labels are in the order of the source.

    Superclasses are in the customary order; they and subclasses exist for diagnostic statements only. Raises
    ValueError for an unknown level.
    """
    if label_level not in LABEL_LEVELS:
        raise ValueError(f"label_level: expected one of {', '.join(LABEL_LEVELS)}, got {label_level!r}")
    if label_level == "statement":
        return {code: [code] for code in statements.index}
    column = {"superclass": "diagnostic_class", "subclass": "diagnostic_subclass"}[label_level]
    label_of = statements.loc[statements["diagnostic"] == 1, column].dropna()
    found = {label: label_of.index[label_of == label].tolist() for label in label_of.unique()}
    return {name: found[name] for name in SUPERCLASSES if name in found} if label_level == "superclass" else found


def _without_duplicates(database: pd.DataFrame, data_dir: Path) -> pd.DataFrame:
    is_copy = database["ecg_id"].isin(DUPLICATES)
    if copies := int(is_copy.sum()):
        path = data_dir / DATABASE_NAME
        logger.warning("%s: %d records that PTB-XL 1.0.3 removed as duplicates are left out", path, copies)
    return database[~is_copy].reset_index(drop=True)


def _files(data_dir: Path, names: pd.Series, sampling_rate: int) -> list[str]:
    folders = sorted({Path(name).parts[0] for name in names})
    absent = [folder for folder in folders if not (data_dir / folder).is_dir()]
    if absent:
        raise FileNotFoundError(f"{data_dir / absent[0]}: no such folder; it holds the {sampling_rate} Hz signals")
    return [str(data_dir / name) for name in names]


def _median_files(data_dir: Path) -> dict[int, str]:
    """12SL's median beats of PTB-XL+ by `ecg_id`, as WFDB stems; empty without its folder."""
    places = (data_dir, data_dir / "ptb-xl-plus", data_dir.parent / "ptb-xl-plus")
    headers = next(filter(None, (sorted(place.glob(MEDIAN_PATTERN)) for place in places)), [])
    return {int(path.name.split("_")[0]): str(path.with_suffix("")) for path in headers}
