"""Pictures show the numbers they were given, and nothing appears on screen."""

import sys

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from fixedbias.plots import OKABE_ITO, Output, plot_history, plot_weights

CURVES = {"loss": [0.9, 0.4, 0.3], "val_loss": [1.0, 0.5, 0.6], "accuracy": [0.5, 0.7, 0.9]}


def lines(axes):
    return {line.get_label(): line.get_ydata() for line in axes.get_lines()}


def test_an_image_kernel_becomes_one_image_per_unit():
    kernel = np.random.default_rng(0).normal(size=(784, 20))
    axes, bar = plot_weights(kernel).axes
    wall = np.asarray(axes.get_images()[0].get_array().filled(np.nan))
    assert wall.shape == (4 * 29 - 1, 4 * 29 - 1)  # 16 of the 20 units
    np.testing.assert_array_equal(wall[:28, :28].ravel(), kernel[:, 0])
    np.testing.assert_array_equal(wall[-28:, -28:].ravel(), kernel[:, 15])
    assert np.isnan(wall[28]).all()  # the gap
    assert bar.get_ylabel() == "weight"


def test_only_the_first_kernel_is_images():
    first, second = np.random.default_rng(0).normal(size=(2, 64, 64))
    figure = plot_weights([first, np.zeros(64), second])
    shapes = [axes.get_images()[0].get_array().shape for axes in figure.axes[:3:2]]
    assert shapes == [(4 * 9 - 1, 4 * 9 - 1), (64, 64)]
    figure = plot_weights([first, second], images=[1])
    shapes = [axes.get_images()[0].get_array().shape for axes in figure.axes[:2]]
    assert shapes == [(64, 64), (4 * 9 - 1, 4 * 9 - 1)]


def test_colours_are_symmetric_and_shared_by_all_kernels():
    figure = plot_weights([np.full((3, 2), 0.5), np.full((2, 2), -2.0)])
    limits = {axes.get_images()[0].get_clim() for axes in figure.axes[:2]}
    assert limits == {(-2.0, 2.0)}
    figure = plot_weights(np.zeros((3, 2)), limit=0.25)
    assert figure.axes[0].get_images()[0].get_clim() == (-0.25, 0.25)


def test_a_bias_is_a_mark_per_unit():
    bias = np.array([0.0, -1.0, 2.0])
    (axes,) = plot_weights(bias).axes
    np.testing.assert_array_equal(axes.get_lines()[-1].get_ydata(), bias)


def test_the_weights_of_a_whole_model():
    from fixedbias import mlp

    figure = plot_weights(mlp(3, 12, "ramp").get_weights())
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles == ["784 x 12", "12", "12 x 12", "12", "12 x 10", "10"]


def test_a_training_shows_both_sides_of_every_metric():
    loss, accuracy = plot_history(CURVES).axes
    assert lines(loss) == {"validation": pytest.approx(CURVES["val_loss"])} | {
        "training": pytest.approx(CURVES["loss"])
    }
    assert list(lines(accuracy)) == ["training"]
    np.testing.assert_array_equal(loss.get_lines()[0].get_xdata(), [1, 2, 3])


def test_seeds_are_thin_and_their_mean_is_thick():
    other = {"loss": [0.5, 0.2, 0.1], "val_loss": [2.0, 1.5, 1.6]}
    (axes,) = plot_history({"fixed": [CURVES, other]}, metrics=["loss"]).axes
    drawn = sorted(axes.get_lines(), key=lambda line: line.get_linewidth())
    assert [line.get_linewidth() for line in drawn[:2]] == [0.7, 0.7]
    np.testing.assert_allclose(drawn[-1].get_ydata(), [1.5, 1.0, 1.1])
    assert drawn[-1].get_label() == "fixed"


def test_a_label_keeps_its_colour_whatever_stands_beside_it():
    both = plot_history({"dense": CURVES, "fixed": CURVES}, styles={"fixed": {"color": "#123456"}})
    colors = {line.get_label(): line.get_color() for line in both.axes[0].get_lines()}
    assert to_hex(colors["fixed validation"]) == "#123456"
    assert colors["dense validation"] == OKABE_ITO[0]


def test_what_keras_returns_is_drawn():
    import keras

    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    history = model.fit(np.ones((8, 2)), np.ones((8, 1)), epochs=2, verbose=0)
    (axes,) = plot_history(history).axes
    np.testing.assert_allclose(lines(axes)["training"], history.history["loss"])


def test_epochs_that_were_not_reached_are_left_out():
    short = {"loss": [0.5, 0.2]}
    (axes,) = plot_history({"a": [{"loss": [0.9, 0.4, 0.3]}, short]}).axes
    mean = max(axes.get_lines(), key=lambda line: line.get_linewidth())
    np.testing.assert_allclose(mean.get_ydata(), [0.7, 0.3])


def test_output_has_both_as_methods():
    output = Output()
    assert isinstance(output.plot_weights(np.eye(3)), Figure)
    assert isinstance(output.plot_history(CURVES), Figure)


def test_figures_are_written_and_pyplot_is_never_imported(tmp_path):
    import subprocess

    code = (
        "import sys; from fixedbias.plots import *; import numpy as np\n"
        f"plot_weights(np.eye(64)).savefig({str(tmp_path / 'w.png')!r})\n"
        f"plot_history({{'loss': [1.0]}}).savefig({str(tmp_path / 'h.svg')!r})\n"
        "assert not {'matplotlib.pyplot', 'tensorflow', 'keras'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert (tmp_path / "w.png").read_bytes()[1:4] == b"PNG"


@pytest.mark.parametrize(
    "weights", [[], 3.0, np.zeros((2, 2, 2)), np.array([np.nan]), [np.ones((0, 3))]]
)
def test_weights_that_cannot_be_drawn_are_refused(weights):
    with pytest.raises(ValueError, match=r"`weights` must be .*Received: shapes"):
        plot_weights(weights)


@pytest.mark.parametrize(
    ("history", "metrics"),
    [({}, None), ({"loss": 3.0}, None), ({"a": []}, None), (CURVES, ["auc"]), (CURVES, [])],
)
def test_histories_that_cannot_be_drawn_are_refused(history, metrics):
    with pytest.raises(ValueError, match=r"`history` must hold"):
        plot_history(history, metrics=metrics)


@pytest.mark.parametrize("wrong", [{"labels": ["a", "b"]}, {"limit": 0}, {"limit": float("inf")}])
def test_labels_and_limits_that_do_not_fit_are_refused(wrong):
    with pytest.raises(ValueError, match="Received: "):
        plot_weights(np.eye(3), **wrong)


def test_epochs_that_were_not_validated_are_not_drawn_at_wrong_places():
    with pytest.raises(ValueError, match=r"every epoch.* Received: .*4 \(loss\), 2 \(val_loss\)"):
        plot_history({"loss": [4.0, 3.0, 2.0, 1.0], "val_loss": [3.0, 1.0]})
