"""Someone's files, of whatever origin, as one kind of row: records, sources, splits, outcomes, Arrow datasets."""

# those of `sources.SOURCES`, for help texts: that module imports every reader, this one nothing
SOURCE_NAMES = "ptb-xl, code-15, sami-trop, mimic-iv-ecg, mit-bih, ukb, wfdb, csv, parquet, synthetic, folder"
