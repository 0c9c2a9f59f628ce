"""What the verbs share: one line to the terminal, and files that are written whole or not at all."""

from pathlib import Path


def say(text: str) -> None:
    """One line to the terminal, at once."""
    print(text, flush=True)


def check_writable(path: Path, suffixes: tuple[str, ...] = (), option: str = "--out") -> None:
    """Refuses, before any work, an output that could not be written."""
    if path.is_dir() or not path.parent.is_dir():
        raise ValueError(f"{option}: expected a file in an existing folder, got {path}")
    if suffixes and path.suffix.lower() not in suffixes:
        raise ValueError(f"{option}: expected a name that ends in {', '.join(suffixes)}, got {path}")


def write_whole(path: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
