"""Terminal output of all commands."""


def say(text: str) -> None:
    """Prints one line immediately. Unlike `typer.echo`, keeps the encoding and error handler of stdout."""
    print(text, flush=True)
