"""Terminal output of all commands."""

from typing import Any


def say(text: str) -> None:
    """Prints one line immediately. Unlike `typer.echo`, keeps the encoding and error handler of stdout."""
    print(text, flush=True)


def say_rows(table: Any, strict: bool = False) -> None:
    """Says what a [`GrowingTable`] holds; ValueError if no file could be used, or with `strict` not all."""
    if table.was_complete:
        return say(f"{table.out}: complete already; delete it to make it again")
    count, bad = table.num_rows, table.num_bad
    say(f"{table.out}: {count} files" + (f", {bad} could not be used, see the column error" if bad else ""))
    if bad and (strict or bad == count):
        raise ValueError(f"{table.out}: {bad} of {count} files could not be used; the first: {table.first_error}")
