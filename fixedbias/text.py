"""Text for people."""

from collections.abc import Sequence


def one_line(text: str) -> str:
    """`text` without line breaks, control characters, or anything else a terminal cannot show.

    >>> one_line("two\\nlines\\x1b[31m")
    'two lines?[31m'
    """
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))


def first_of(lines: Sequence[str], most: int) -> list[str]:
    """The first `most` of some lines, and how many more there are.

    >>> first_of(["a", "b", "c"], 2)
    ['a', 'b', '... and 1 more']
    """
    left = len(lines) - most
    return [*lines[:most], f"... and {left:,} more"] if left > 0 else list(lines)
