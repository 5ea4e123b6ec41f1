"""Text for people."""


def one_line(text: str) -> str:
    """`text` without line breaks, control characters, or anything else a terminal cannot show.

    >>> one_line("two\\nlines\\x1b[31m")
    'two lines?[31m'
    """
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))
