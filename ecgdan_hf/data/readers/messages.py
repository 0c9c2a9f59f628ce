"""Words of error messages. Imports nothing, as the child process that decodes files needs it."""


def one_line(error: BaseException) -> str:
    """The message of an error without line breaks, or its type if it has no message."""
    return " ".join(str(error).split()) or type(error).__name__
