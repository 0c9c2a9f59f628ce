"""The table of expectations names tests that there are, and no expectation without one."""

import re

from fixtures.write_clone import REPOSITORY

TABLE = (REPOSITORY / "docs" / "expectations.md").read_text(encoding="utf-8")


def test_every_test_named_in_the_table_exists() -> None:
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", TABLE)
    missing = [
        f"{file}::{name}"
        for file, name in named
        if f"def {name}(" not in (REPOSITORY / "tests" / file).read_text(encoding="utf-8")
    ]
    assert not missing
    assert len(named) > 80


def test_every_row_of_the_table_names_a_test() -> None:
    rows = [
        line
        for line in TABLE.split("## A stranger's path")[0].splitlines()
        if line.startswith("| ") and not line.startswith(("| expectation", "| asked"))
    ]
    assert [row for row in rows if "::test_" not in row] == []
