"""The one exception that reports bad input to the user. Nothing here ends a process: see `modeling.cli.errors.run`."""


class UserError(Exception):
    """Bad input: a flag, a file or a value. The message is one line that names file, row and value, and the flag or step that mends it."""


def counted(count: int, noun: str) -> str:
    """A number of things in a message: "1 label", "2 labels"."""
    return f"{count} {noun}" + ("" if count == 1 else "s")
