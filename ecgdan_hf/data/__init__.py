"""Someone's files, of whatever origin, as one kind of row: records, sources, splits, outcomes, Arrow datasets."""

# those of `sources.SOURCES`, for help texts: that module imports every reader, this one nothing
SOURCE_NAMES = "ptb-xl, code-15, sami-trop, mimic-iv-ecg, mit-bih, ukb, wfdb, csv, parquet, synthetic, folder"
_ALSO = {"ukbiobank": "ukb", "mimic": "mimic-iv-ecg", "mimicecg": "mimic-iv-ecg"}


def source_name(name: str) -> str:
    """The name of a source as it is written here: `"PTB_XL"` and `"ptbxl"` give `"ptb-xl"`; unknown names stay."""
    bare = "".join(letter for letter in str(name).lower() if letter.isalnum())
    known = {each.replace("-", ""): each for each in SOURCE_NAMES.split(", ")}
    return {**known, **_ALSO}.get(bare, name)
