"""The registry of ECG sources: names, how a folder is recognised, what cards say, and which module reads it.

Command-line help imports this module, so a source's reader is only imported when it is used. To add a source, write
its module and add one `Source` to `SOURCES`.
"""

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True)
class Source:
    """One kind of folder that becomes a table of records.

    Attributes:
        name: as on the command line.
        title: for prose; the name of a published dataset.
        reader: `module:function` below `ecgdan_hf.data`; the function takes the folder (and `options`) and returns
            the table, one row per record, with `record_id`, `patient_id` and `file`.
        description: what model cards say of the training data: origin, years, licence, citation. Empty if only the
            user knows.
        aliases: further names, in lower case without punctuation.
        patterns: globs; a folder with a match for one of them is of this source.
        recogniser: `module:function` that inspects a folder, if file names do not identify the source.
        suffix: of a single file that may be given instead of a folder, such as `.csv`.
        options: arguments of the reader besides the folder.
        label_levels: the levels at which the source's labels exist, for sources with SCP statements.
        has_outcomes: whether it has events and times: True, False, or None if that depends on the user's table.
        license: the Hub's identifier; None if the user decides or there is none.
        hub_id: OWNER/NAME of the publisher's own copy on the Hub, if any; third-party copies are not trusted.
        is_simulated: the records are not of patients.
        caveat: the limits of training on it, for model cards.
        citation: the citation that model cards ask for.
    """

    name: str
    title: str
    reader: str
    description: str = ""
    aliases: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()
    recogniser: str = ""
    suffix: str = ""
    options: tuple[str, ...] = ()
    label_levels: tuple[str, ...] = ()
    has_outcomes: bool | None = None
    license: str | None = None
    hub_id: str | None = None
    is_simulated: bool = False
    caveat: str = ""
    citation: str = ""

    def recognises(self, path: Path) -> bool:
        """Whether a folder, or a file given instead of one, looks like this source."""
        if path.is_file():
            return path.suffix.lower() == self.suffix
        if any(next(path.glob(pattern), None) is not None for pattern in self.patterns):
            return True
        return bool(self.recogniser and _imported(self.recogniser)(path))

    def read_table(self, data_dir: str | Path, **options: Any) -> "pd.DataFrame":
        """Reads the table of records; options that the source does not have are ignored.

        Raises:
            FileNotFoundError: the folder or a part of it is missing; the message names another source if it looks like
            one.
            ValueError: a table that cannot be used.
        """
        used = {name: value for name, value in options.items() if name in self.options}
        try:
            table: pd.DataFrame = _imported(self.reader)(Path(data_dir), **used)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{error}{self._hint(Path(data_dir))}") from error
        return table

    def _hint(self, path: Path) -> str:
        other = next((each for each in SOURCES if path.exists() and each.recognises(path)), self)
        return "" if other in (self, _FOLDER, _WFDB) else f"; the files look like {other.name}, not {self.name}"


_FOLDER = Source(
    name="folder",
    title="a folder of ECG files",
    reader="sources.ecg_folder:read_folder",
    recogniser="sources.ecg_folder:holds_ecgs",
    has_outcomes=False,
)
_WFDB = Source(
    name="wfdb",
    title="WFDB recordings",
    reader="sources.ecg_folder:read_wfdb_folder",
    recogniser="sources.ecg_folder:holds_wfdb_alone",
    has_outcomes=False,
)

SOURCES = (  # in the order in which a folder is compared with them: specific before general
    Source(
        name="ptb-xl",
        title="PTB-XL",
        reader="sources.ptbxl:read_ptbxl",
        patterns=("ptbxl_database.csv",),
        options=("sampling_rate", "label_level"),
        label_levels=("superclass", "subclass", "statement"),
        has_outcomes=False,
        description=(
            "PTB-XL, 12-lead ECGs of 10 s from Germany, 1989 to 1996 (PhysioNet, CC BY 4.0; Wagner et al. 2020)"
        ),
        license="cc-by-4.0",
        caveat=(
            "PTB-XL: one region, ECG carts of one maker, recorded 1989 to 1996. The model inherits its selection of "
            "patients and the gaps in its statements."
        ),
        citation=(
            "PTB-XL (Wagner et al. 2020, https://physionet.org/content/ptb-xl/), licence CC BY 4.0, which "
            "requires attribution"
        ),
    ),
    Source(
        name="mimic-iv-ecg",
        title="MIMIC-IV-ECG",
        reader="sources.mimic_iv_ecg:read_mimic_iv_ecg",
        aliases=("mimic", "mimicecg"),
        patterns=("record_list.csv",),
        description=(
            "MIMIC-IV-ECG, 12-lead ECGs of 10 s from one hospital in Boston, 2008 to 2019 (PhysioNet, ODbL; Gow et "
            "al. 2023)"
        ),
        license="odbl",
        caveat="MIMIC-IV-ECG: patients of one hospital, emergency department included, who are sicker than most.",
        citation="MIMIC-IV-ECG (Gow et al. 2023, https://doi.org/10.13026/4nqg-sb35), Open Database License",
    ),
    Source(
        name="sami-trop",
        title="SaMi-Trop",
        reader="sources.exams:read_samitrop",
        patterns=("exams.hdf5", "exams.zip"),
        has_outcomes=True,
        description=(
            "SaMi-Trop, 12-lead ECGs of 7 or 10 s of patients with chronic Chagas cardiomyopathy in Brazil, 2011 to "
            "2012 (Zenodo, CC BY 4.0; Cardoso et al. 2016)"
        ),
        license="cc-by-4.0",
        caveat="SaMi-Trop: patients with chronic Chagas cardiomyopathy only.",
        citation=(
            "SaMi-Trop (Cardoso et al. 2016, https://doi.org/10.5281/zenodo.4905618), licence CC BY 4.0, which "
            "requires attribution"
        ),
    ),
    Source(
        name="code-15",
        title="CODE-15%",
        reader="sources.exams:read_code15",
        patterns=("exams.csv",),
        has_outcomes=True,
        description=(
            "CODE-15%, 12-lead ECGs of 7 or 10 s from primary care in Minas Gerais, Brazil, 2010 to 2016 (Zenodo, CC "
            "BY 4.0; Ribeiro et al. 2021)"
        ),
        license="cc-by-4.0",
        caveat="CODE-15%: one telehealth network; readers found amplitudes about twice those of other devices.",
        citation=(
            "CODE-15% (Ribeiro et al. 2021, https://doi.org/10.5281/zenodo.4916206), licence CC BY 4.0, which "
            "requires attribution"
        ),
    ),
    Source(
        name="csv",
        title="own recordings",
        reader="sources.csv_table:read_csv_table",
        patterns=("table.csv",),
        suffix=".csv",
    ),
    Source(
        name="parquet",
        title="recordings in Parquet",
        reader="readers.parquet:read_parquet_folder",
        patterns=("data/*.parquet", "*.parquet"),
    ),
    Source(
        name="mit-bih",
        title="MIT-BIH Arrhythmia Database",
        reader="sources.mitbih:read_mitbih",
        patterns=("[12][0-3][0-9].atr",),
        has_outcomes=False,
        description=(
            "MIT-BIH Arrhythmia Database, 10 s segments of two-lead Holter recordings from Boston, 1975 to 1979 "
            "(PhysioNet, ODC-By; Moody and Mark 2001)"
        ),
        license="odc-by",
        caveat=("MIT-BIH: a few dozen patients, recorded 1975 to 1979, chosen in part for rare arrhythmias."),
        citation=(
            "the MIT-BIH Arrhythmia Database (Moody and Mark 2001, https://physionet.org/content/mitdb/), Open Data "
            "Commons Attribution Licence"
        ),
    ),
    Source(
        name="ukb",
        title="UK Biobank",
        reader="sources.ukbiobank:read_ukbiobank",
        aliases=("ukbiobank",),
        patterns=("**/*_20205_*",),
        recogniser="sources.ukbiobank:in_zips",
        suffix=".zip",
        has_outcomes=False,
        description=(
            "UK Biobank, 12-lead resting ECGs of 10 s (field 20205) of volunteers in the United Kingdom; not public, "
            "available to approved researchers"
        ),
        caveat="UK Biobank: volunteers, who are healthier and more often white than the population they come from.",
        citation="UK Biobank, whose terms ask for acknowledgement under the project's application number",
    ),
    _WFDB,
    Source(
        name="synthetic",
        title="synthetic ECGs",
        reader="sources.csv_table:read_synthetic",
        has_outcomes=True,
        description="synthetic ECGs drawn by this package; no patient is behind them",
        is_simulated=True,
    ),
    _FOLDER,
)


SOURCE_NAMES = ", ".join(source.name for source in SOURCES)


def find_source(name: str | None, data_dir: str | Path | None = None) -> Source:
    """Returns the named source, in any spelling (`"PTB_XL"` and `"ptbxl"` are `"ptb-xl"`), or recognises that of a
    folder.

    Raises:
        FileNotFoundError: no such folder, or no ECG in it.
        ValueError: an unknown name, a file that is not a table, or neither name nor folder.
    """
    if name is None:
        if data_dir is None:
            raise ValueError("data_dir: expected the folder of the recordings, got none; give --data-dir")
        return _recognised(Path(data_dir))
    bare = "".join(letter for letter in str(name).lower() if letter.isalnum())
    for source in SOURCES:
        if bare in (source.name.replace("-", ""), *source.aliases):
            return source
    raise ValueError(f"data: expected a source, one of {SOURCE_NAMES}, got {name!r}")


def read_source(name: str | None, data_dir: str | Path, **options: Any) -> "pd.DataFrame":
    """Returns the table of records; see [`find_source`] and [`Source.read_table`] for arguments and errors."""
    return find_source(name, data_dir).read_table(data_dir, **options)


def _recognised(path: Path) -> Source:
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such folder")
    for source in SOURCES:
        if source.recognises(path):
            return source
    if path.is_file():
        suffixes = " or ".join(source.suffix for source in SOURCES if source.suffix)
        raise ValueError(f"{path}: expected a folder or a file that ends in {suffixes}, got another file")
    layouts = ", ".join(source.name for source in SOURCES if source.patterns)
    raise FileNotFoundError(f"{path}: expected ECG files or the layout of {layouts}, found none of them")


def _imported(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(import_module(f"ecgdan_hf.data.{module}"), name)
