"""Dates as hospitals write them: 2015-06-01, 01.06.2015, 01/06/2015, with or without a time of day."""

import pandas as pd

_ISO = r"(?P<year>\d{4})[-/.](?P<month>\d{1,2})[-/.](?P<day>\d{1,2})"
_OTHER = r"(?P<first>\d{1,2})(?P<mark>[./-])(?P<second>\d{1,2})[./-](?P<year>\d{4})"
_TIME = r"(?:[ T]\d{1,2}:\d{2}(?::\d{2}(?:\.\d+)?)?(?:Z|[+-]\d{2}:?\d{2})?)?"
EXPECTED = "a date as 2015-06-01, 01.06.2015 or 25/12/2015"


def parse_dates(text: "pd.Series[str]", where: str, day_first: bool | None = None) -> "pd.Series[pd.Timestamp]":
    """Dates of a column of text; NaT for a blank.

    Days come before months where points separate them. Where slashes or hyphens do, the column has to show it by a
    number above 12, unless `day_first` says it.

    Raises:
        ValueError: with `where`, for what is no date, and for a column that may be read both ways.
    """
    bare = text.fillna("").astype(str).str.strip()
    iso = bare.str.extract(f"^{_ISO}{_TIME}$")
    other = bare.str.extract(f"^{_OTHER}{_TIME}$")
    unclear = other["mark"].isin(["/", "-"])
    if day_first is None and unclear.any():
        day_first = _shows_day_first(other[unclear], bare[unclear], where)
    swapped = unclear & (day_first is False)
    months = iso["month"].fillna(other["first"].where(swapped, other["second"]))
    days = iso["day"].fillna(other["second"].where(swapped, other["first"]))
    years = iso["year"].fillna(other["year"])
    parts = (part.astype(str) for part in (years, months, days))  # a column without any would be numbers
    dates = pd.to_datetime(next(parts) + "-" + next(parts) + "-" + next(parts), format="%Y-%m-%d", errors="coerce")
    bad = dates.isna() & (bare != "")
    if bad.any():
        raise ValueError(f"{where}: expected {EXPECTED}, got {bare[bad].iloc[0]!r}")
    return dates


def _shows_day_first(parts: pd.DataFrame, text: "pd.Series[str]", where: str) -> bool:
    first, second = (parts[name].astype(int).max() > 12 for name in ("first", "second"))
    if first == second:
        found = "days and months in both orders" if first else f"{text.iloc[0]!r} and the like"
        raise ValueError(
            f"{where}: expected dates of which one shows whether days or months come first, got {found}; write "
            "2015-06-01"
        )
    return bool(first)
