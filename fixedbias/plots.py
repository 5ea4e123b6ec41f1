"""Pictures of weights and of training, as Matplotlib figures that nothing draws on screen.

Made without `pyplot`, so a figure belongs to its caller alone: nothing has to be closed, and a
notebook's or a program's own figures are left as they are.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator

if TYPE_CHECKING:
    import keras

History: TypeAlias = "keras.callbacks.History | Mapping[str, Sequence[float]]"

OKABE_ITO = ("#000000", "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
"""Colours that the colour-blind tell apart (Okabe and Ito, Color Universal Design, 2008)."""
_DASHES = ("-", (0, (6, 1.5)), (0, (2, 1)), "-.", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1.5)))
_TILES = 16


def plot_weights(
    weights: Any,
    *,
    labels: Sequence[str] | None = None,
    limit: float | None = None,
    columns: int = 4,
    images: Collection[int] | None = None,
    figure: Figure | SubFigure | None = None,
) -> Figure | SubFigure:
    """Draws weights: kernels as pictures, biases as one mark per unit.

    A kernel that sees a square image (784 = 28 x 28 inputs and the like, from 8 x 8 on), by default
    the first, is shown as what each of its first 16 units looks at, one image per unit; another
    as a matrix, inputs downwards, units to the right. All kernels share one colour scale, symmetric
    about zero: red is negative, blue is positive, white is zero.

    Where it does not help: beyond the first layer inputs have no place in an image, and a matrix
    of hundreds of units shows little but its scale.

    Args:
        weights: An array of rank 1 or 2, or a list of them, as `get_weights()` of a layer or a
            model returns. A kernel has shape `(inputs, units)`, a bias `(units,)`.
        labels: A title for each array; by default its shape.
        limit: The colour scale runs from `-limit` to `limit`; by default to the largest magnitude.
            Give it to compare several figures.
        columns: Images in a row, for kernels that are shown as images.
        images: Which of the arrays, counted from 0, see images, if the number of their inputs
            allows it; by default the first kernel.
        figure: Draws into this figure or subfigure instead of a new one.

    Returns:
        The figure. `figure.savefig("weights.png")` writes it.

    Raises:
        ValueError: There are no weights, one is not finite or of another rank, or `labels` or
            `limit` do not fit.

    Example:

    >>> figure = plot_weights([np.eye(4), np.zeros(4)])
    >>> [axes.get_title() for axes in figure.axes[:2]]
    ['4 x 4', '4']
    """
    arrays = _arrays(weights)
    titles = [" x ".join(map(str, a.shape)) for a in arrays] if labels is None else list(labels)
    if len(titles) != len(arrays):
        raise ValueError(
            f"`labels` must be as many as the arrays, {len(arrays)}. Received: labels={labels!r}"
        )
    if limit is not None and not 0 < limit < math.inf:
        raise ValueError(f"`limit` must be a positive number. Received: limit={limit!r}")
    kernels = [a for a in arrays if a.ndim == 2]
    bound = limit or max((float(np.abs(k).max()) for k in kernels), default=0.0) or 1.0
    # Beyond the first layer inputs have no place in an image, though 64 of them are a square.
    first = next((n for n, a in enumerate(arrays) if a.ndim == 2), None)
    seeing = [first] if images is None else images
    walls = [n in seeing and a.ndim == 2 and _is_image(a) for n, a in enumerate(arrays)]
    ratios = [_height(a, wall, columns) for a, wall in zip(arrays, walls, strict=True)]
    if figure is None:
        figure = Figure(figsize=(4.8, sum(ratios)), layout="constrained")
    grid = figure.subplots(len(arrays), squeeze=False, gridspec_kw={"height_ratios": ratios})
    image = None
    for axes, array, wall, title in zip(grid.flat, arrays, walls, titles, strict=True):
        axes.set_title(title, fontsize="medium")
        if array.ndim == 1:
            _marks(axes, array)
        else:
            image = _wall(axes, array, bound, columns) if wall else _matrix(axes, array, bound)
    if image is not None:
        drawn = [axes for axes, a in zip(grid.flat, arrays, strict=True) if a.ndim == 2]
        figure.colorbar(image, ax=drawn, label="weight", shrink=0.8)
    return figure


def plot_history(
    history: "History | Mapping[str, History | Sequence[History]]",
    *,
    metrics: Sequence[str] | None = None,
    styles: Mapping[str, Mapping[str, Any]] | None = None,
    figure: Figure | SubFigure | None = None,
) -> Figure | SubFigure:
    """Draws learning curves: one panel per metric over the epochs, validation in the same panel.

    Training is dashed, validation solid. Several trainings are drawn over each other, one colour
    and line for each; where one of them holds several histories (its seeds), each is a thin line
    and their mean a thick one, validation only where there is any.

    Args:
        history: What `fit` or `fit_compiled` returns, or its `history`: a dict with one value per
            epoch under each metric, validation under `val_` and its name. Or a dict of these by
            label, each one history or a list of them.
        metrics: Which metrics, without `val_`, and in which order; by default all.
        styles: Properties of Matplotlib lines by label, such as `{"fixed": {"color": "blue"}}`; by
            default the colours of `OKABE_ITO` in turn, with dashes.
        figure: Draws into this figure or subfigure instead of a new one.

    Returns:
        The figure.

    Raises:
        ValueError: There is no history, or none has a metric that is asked for.

    Example:

    >>> curves = {"loss": [0.9, 0.4], "val_loss": [1.0, 0.5]}
    >>> figure = plot_history({"dense": curves, "fixed": [curves, curves]})
    >>> [axes.get_ylabel() for axes in figure.axes]
    ['loss']
    """
    trainings = _trainings(history)
    present = [name for runs in trainings.values() for run in runs for name in run]
    names = list(dict.fromkeys(name.removeprefix("val_") for name in present))
    wanted = list(names if metrics is None else metrics)
    if not wanted or not set(wanted) <= set(names):
        raise ValueError(
            f"`history` must hold one list of values per metric, and `metrics` be among them. "
            f"Received: history with {names}, metrics={metrics!r}"
        )
    if figure is None:
        figure = Figure(figsize=(0.6 + 3.4 * len(wanted), 2.9), layout="constrained")
    panels = figure.subplots(1, len(wanted), squeeze=False)[0]
    for axes, metric in zip(panels, wanted, strict=True):
        for n, (label, runs) in enumerate(trainings.items()):
            style = {"color": OKABE_ITO[n % len(OKABE_ITO)], "linestyle": _DASHES[n % len(_DASHES)]}
            _curves(axes, metric, label, runs, {**style, **(styles or {}).get(label, {})})
        # Of several trainings with several seeds only one side is drawn.
        one_side = all(len(runs) > 1 for runs in trainings.values()) and f"val_{metric}" in present
        axes.set(xlabel="epoch", ylabel=f"validation {metric}" if one_side else metric)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        axes.grid(alpha=0.3)
    handles = dict(zip(*reversed(panels[0].get_legend_handles_labels()), strict=True))
    if len(handles) > 1:
        panels[0].legend(handles.values(), handles.keys(), fontsize="small", frameon=False)
    return figure


class Output:
    """`plot_weights` and `plot_history` as the methods of one object.

    Example:

    >>> Output().plot_history({"loss": [0.9, 0.4]}).axes[0].get_xlabel()
    'epoch'
    """

    def plot_weights(self, weights: Any) -> Figure | SubFigure:
        """See `plot_weights`."""
        return plot_weights(weights)

    def plot_history(self, history: Any) -> Figure | SubFigure:
        """See `plot_history`."""
        return plot_history(history)


def _arrays(weights: Any) -> list[np.ndarray]:
    several = isinstance(weights, list | tuple) and all(np.ndim(w) > 0 for w in weights)
    arrays = [np.asarray(w, "float64") for w in (weights if several else [weights])]
    for array in arrays or [np.empty(())]:
        if array.ndim not in (1, 2) or not array.size or not np.isfinite(array).all():
            raise ValueError(
                "`weights` must be finite arrays of rank 1 or 2, at least one. "
                f"Received: shapes {[a.shape for a in arrays]}, or values that are not finite"
            )
    return arrays


def _is_image(array: np.ndarray) -> bool:
    side = math.isqrt(len(array))
    return side >= 8 and side * side == len(array)


def _height(array: np.ndarray, wall: bool, columns: int) -> float:
    if array.ndim == 1:
        return 1.7
    if not wall:
        return 2.6
    return 0.4 + 3.6 / columns * -(-min(array.shape[1], _TILES) // columns)


def _look(bound: float) -> dict[str, Any]:
    scale = colormaps["RdBu"].with_extremes(bad="0.45")  # for the gaps: white would be zero
    return {"cmap": scale, "vmin": -bound, "vmax": bound, "interpolation": "nearest"}


def _matrix(axes: Axes, kernel: np.ndarray, bound: float) -> Any:
    axes.set(xlabel="unit", ylabel="input")
    return axes.imshow(kernel, aspect="auto", **_look(bound))


def _wall(axes: Axes, kernel: np.ndarray, bound: float, columns: int) -> Any:
    side = math.isqrt(len(kernel))
    shown = kernel[:, :_TILES].T.reshape(-1, side, side)
    columns = min(len(shown), columns)
    rows = -(-len(shown) // columns)
    # One pixel between the images, and as many empty ones as fill the last row.
    wall = np.full((rows * (side + 1) - 1, columns * (side + 1) - 1), np.nan)
    for n, tile in enumerate(shown):
        top, left = n // columns * (side + 1), n % columns * (side + 1)
        wall[top : top + side, left : left + side] = tile
    axes.set_axis_off()
    return axes.imshow(wall, **_look(bound))


def _marks(axes: Axes, values: np.ndarray) -> None:
    axes.axhline(0, color="0.6", linewidth=0.8)
    axes.plot(values, linestyle="none", marker=".", markersize=4, color=OKABE_ITO[1])
    axes.set(xlabel="unit", ylabel="bias")
    axes.margins(x=0.02)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _trainings(history: Any) -> dict[str, list[dict[str, list[float]]]]:
    """Lists of histories by label, whatever form they came in."""

    def single(what: Any) -> dict[str, list[float]] | None:
        values = getattr(what, "history", what)
        if not isinstance(values, Mapping):
            return None
        arrays = [np.asarray(v) for v in values.values()]
        # A list of histories has rank 1 too, but it holds no numbers.
        flat = all(a.ndim == 1 and a.size and a.dtype.kind in "fiub" for a in arrays)
        if flat and len({a.size for a in arrays}) > 1:
            raise ValueError(
                "`history` must have a number for every epoch: with another `validation_freq` than "
                "1 none tells which epochs were validated. Received: lists of "
                f"{', '.join(f'{len(v)} ({name})' for name, v in values.items())}"
            )
        return {name: [float(x) for x in v] for name, v in values.items()} if flat else None

    if (alone := single(history)) is not None:
        return {"": [alone]} if alone else {}
    found = {}
    for label, runs in history.items() if isinstance(history, Mapping) else ():
        listed = [single(run) for run in (runs if isinstance(runs, list | tuple) else [runs])]
        found[str(label)] = [run for run in listed if run]
    return found


def _curves(
    axes: Axes, metric: str, label: str, runs: list[dict[str, list[float]]], style: dict[str, Any]
) -> None:
    several = len(runs) > 1
    names = [f"val_{metric}", metric]
    shown = [name for name in names if any(name in run for run in runs)]
    for name in shown[:1] if several else shown:
        training = name == metric and not several
        words = " ".join(filter(None, [label, "training" if name == metric else "validation"]))
        text = label if several else words
        line = {"linewidth": 1.6} | style | ({"linestyle": "--"} if training else {})
        curves = [run[name] for run in runs if name in run]
        # A curve of one epoch is a point.
        marker = "." if max(map(len, curves)) < 12 else ""
        for curve in curves if several else []:
            axes.plot(
                range(1, len(curve) + 1), curve, color=style["color"], linewidth=0.7, alpha=0.35
            )
        length = min(map(len, curves))
        mean = np.mean([curve[:length] for curve in curves], axis=0)
        axes.plot(range(1, length + 1), mean, label=text, marker=marker, **line)
