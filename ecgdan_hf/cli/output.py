"""What the verbs share: one line to the terminal."""


def say(text: str) -> None:
    """One line to the terminal, at once."""
    print(text, flush=True)
