"""How every figure looks: one colour, mark and line per arm, print sizes, PNGs that do not vary."""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.figure import Figure
from PIL import Image, PngImagePlugin

from bench.arms import AGAIN, REFERENCE

WIDTH = 7.2
"""Inches: the text width of a printed A4 page."""
_DPI = 160


class Look(NamedTuple):
    """How an arm is drawn. Marks and dashes tell arms apart on grey paper too."""

    color: str
    marker: str
    dash: Any


# Okabe and Ito's colours, which the colour-blind tell apart; the reference is black.
_LOOKS = {
    REFERENCE: Look("#000000", "o", "-"),
    "fixed": Look("#0072B2", "s", (0, (6, 1.5))),
    "dense-nobias": Look("#E69F00", "^", (0, (2, 1))),
    "dense-frozen": Look("#009E73", "D", "-."),
    "fixed-lambda": Look("#CC79A7", "v", (0, (5, 1, 1, 1))),
    "plain": Look("#D55E00", "P", (0, (1, 1.5))),
    AGAIN: Look("#888888", "x", ":"),
}
_SPARE = (
    Look("#56B4E9", "X", (0, (4, 2, 1, 2))),
    Look("#7A3E9D", "*", (0, (8, 2))),
    Look("#8A6D00", "h", (0, (3, 1, 1, 1, 1, 1))),
    Look("#5B5B5B", "p", (0, (1, 3))),
)


def looks(arms: Sequence[str]) -> dict[str, Look]:
    """The look of each arm: always the same for the driver's own, in turn for a user's layers.

    >>> looks(["dense", "Mine"])["dense"] == looks(["fixed", "dense"])["dense"]
    True
    """
    unknown = [arm for arm in arms if arm not in _LOOKS]
    spare = {arm: _SPARE[n % len(_SPARE)] for n, arm in enumerate(unknown)}
    return {arm: _LOOKS.get(arm) or spare[arm] for arm in arms}


@contextmanager
def paper() -> Iterator[None]:
    """Matplotlib's settings for a report, whatever the user's own are."""
    ours: dict[Any, Any] = {
        "font.size": 8,
        "axes.titlesize": 8,
        "axes.labelsize": 8,
        "legend.fontsize": 7.5,
        "xtick.labelsize": 7,
        "ytick.labelsize": 7,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 0.7,
        "grid.linewidth": 0.5,
        "grid.alpha": 0.4,
        "hatch.linewidth": 0.6,
        "legend.frameon": False,
        "text.parse_math": False,  # names come from users: "$" is a dollar
    }
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(ours)
        yield


def png(figure: Figure, description: str, *, dpi: int = _DPI, colors: int = 160) -> bytes:
    """A figure as a small PNG: the same bytes for the same figure, `description` inside it."""
    buffer = io.BytesIO()
    # Without the name of the program and its version, which say nothing of the picture.
    figure.savefig(buffer, format="png", dpi=dpi, facecolor="white", metadata={"Software": None})
    image = Image.open(buffer).convert("RGB")
    # Flat areas and text lose nothing with few colours, and the file is a third of the size.
    image = image.quantize(colors, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    info = PngImagePlugin.PngInfo()
    info.add_itxt("Description", description)
    small = io.BytesIO()
    image.save(small, "PNG", optimize=True, pnginfo=info)
    return small.getvalue()
