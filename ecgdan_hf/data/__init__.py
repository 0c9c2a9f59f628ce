"""Somebody's files, of whatever origin, as one kind of row: records, sources, splits, outcomes, Arrow datasets."""
