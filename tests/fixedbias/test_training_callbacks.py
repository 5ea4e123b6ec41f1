"""Callbacks that act at epochs do what they do in `fit`; those that act at batches are refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from keras import callbacks
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fixedbias.training import fit_compiled
from tests.fixedbias.trainings import BATCH, X, Y, check_equal, small

slow = pytest.mark.slow


def scalars(folder: Path) -> dict[tuple[str, str], list[tuple[int, float]]]:
    found = {}
    for writer in ("train", "validation"):
        events = EventAccumulator(str(folder / writer))
        events.Reload()
        for tag in events.Tags()["tensors"]:
            if tag != "keras":
                points = events.Tensors(tag)
                found[writer, tag] = [
                    (point.step, float(tf.make_ndarray(point.tensor_proto))) for point in points
                ]
    return found


# Keras calls `np.array` on HDF5 data sets, whose `__array__` has no `copy`.
@pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)
def test_callbacks_that_act_at_epochs_do_what_they_do_in_fit(tmp_path: Path) -> None:
    folders = iter([tmp_path / "fit", tmp_path / "compiled"])

    def make() -> keras.Model:
        model, folder = small(optimizer=keras.optimizers.SGD(0.5)), next(folders)
        stack[:] = [
            callbacks.EarlyStopping("val_loss", patience=2, restore_best_weights=True),
            callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.9),
            callbacks.ReduceLROnPlateau("loss", patience=0),
            callbacks.ModelCheckpoint(str(folder / "{epoch}.keras")),
            callbacks.CSVLogger(str(tmp_path / f"{folder.name}.csv")),
            callbacks.TensorBoard(folder),
        ]
        return model

    stack: list[callbacks.Callback] = []
    model = check_equal(make, X, Y, epochs=9, validation_split=0.5, callbacks=stack)
    # Else early stopping was not tested.
    assert 2 < len(model.history.epoch) < 9

    ours, theirs = tmp_path / "compiled", tmp_path / "fit"
    assert sorted(path.name for path in ours.glob("*.keras")) == sorted(
        path.name for path in theirs.glob("*.keras")
    )
    pd.testing.assert_frame_equal(
        pd.read_csv(tmp_path / "compiled.csv"), pd.read_csv(tmp_path / "fit.csv"), rtol=1e-5
    )
    written, expected = scalars(ours), scalars(theirs)
    assert written.keys() == expected.keys()
    assert {("train", "epoch_loss"), ("validation", "epoch_loss")} <= written.keys()
    for tag, points in expected.items():
        np.testing.assert_allclose(written[tag], points, rtol=1e-5, err_msg=str(tag))


def test_a_callback_sees_plain_numbers_and_can_stop_the_training() -> None:
    seen: list[tuple[str, Any]] = []

    class Watch(callbacks.Callback):
        def on_train_begin(self, logs: Any = None) -> None:
            seen.append(("train begins", logs))

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            seen.append((f"epoch {epoch}", logs))
            self.model.stop_training = epoch == 1

        def on_test_end(self, logs: Any = None) -> None:
            seen.append(("test ends", logs))

        def on_train_end(self, logs: Any = None) -> None:
            seen.append(("train ends", logs))

    model = small()
    history = fit_compiled(
        model, X, Y, BATCH, epochs=5, validation_split=0.5, callbacks=[Watch()], verbose=0
    )
    names = [name for name, _ in seen]
    assert names == ["train begins", "test ends", "epoch 0", "test ends", "epoch 1", "train ends"]
    logs = seen[-1][1]
    assert sorted(logs) == ["loss", "val_loss"]
    assert all(type(value) is float for value in logs.values())
    assert history.history["loss"][-1] == logs["loss"]
    assert history is model.history
    assert fit_compiled(model, X, Y, BATCH, epochs=2, verbose=0).epoch == [0, 1]


def test_a_callback_list_is_used_as_it_is() -> None:
    model = small()
    given = callbacks.CallbackList([callbacks.History()], model=model)
    history = fit_compiled(model, X, Y, BATCH, epochs=2, callbacks=given)
    assert history is given.callbacks[0]
    assert len(history.history["loss"]) == 2


def test_progress(capsys: pytest.CaptureFixture) -> None:
    model, held_out = small(), (X[:8], Y[:8])
    bar = ["Epoch 1/2", "2/2", "val_loss", "Epoch 2/2"]
    lines = ["Epoch 1/2", "2/2 - ", " - val_loss: ", "Epoch 2/2"]
    for verbose, printed in [(0, []), (1, bar), ("auto", bar), (2, lines)]:
        fit_compiled(model, X, Y, BATCH, 2, validation_data=held_out, verbose=verbose)
        output = capsys.readouterr().out
        assert bool(output) == bool(printed)
        for text in printed:
            assert text in output


def batch_callback(hook: str) -> callbacks.Callback:
    """A callback with one hook of its own."""
    own = {hook: lambda self, batch, logs=None: None}
    return type("Own", (callbacks.Callback,), own)()


class OwnCheckpoint(callbacks.ModelCheckpoint):
    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Does something."""


@pytest.mark.parametrize(
    "make",
    [
        lambda: batch_callback("on_train_batch_begin"),
        lambda: batch_callback("on_train_batch_end"),
        lambda: batch_callback("on_test_batch_begin"),
        lambda: batch_callback("on_test_batch_end"),
        lambda: batch_callback("on_batch_end"),
        lambda: callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: None),
        lambda: callbacks.ModelCheckpoint("x.keras", save_freq=2),
        lambda: OwnCheckpoint("x.keras"),
        lambda: callbacks.TensorBoard(update_freq="batch"),
        lambda: callbacks.TensorBoard(profile_batch=(2, 3)),
        lambda: callbacks.TerminateOnNaN(),
        lambda: callbacks.CallbackList([callbacks.TerminateOnNaN()]),
    ],
)
def test_callbacks_that_act_at_batches_are_refused(
    make: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    callback = make()
    with pytest.raises(ValueError, match=r"act at epochs only, .* `on_.*batch_.*Received: "):
        fit_compiled(small(), X, Y, callbacks=callback)


def test_a_callback_that_tells_fit_alone_where_to_go_on_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`initial_epoch` after loading"):
        fit_compiled(small(), X, Y, callbacks=callbacks.BackupAndRestore(str(tmp_path)))


@pytest.mark.parametrize("moment", ["on_train_begin", "on_epoch_begin"])
def test_stopped_before_an_epoch_one_batch_of_it_is_trained(moment: str) -> None:
    class Stop(callbacks.Callback):
        """Keras looks after every batch."""

    def stop(self: Stop, *_: Any) -> None:
        self.model.stop_training = True

    setattr(Stop, moment, stop)
    model = check_equal(lambda: small(metrics=["mae"]), X, Y, epochs=3, callbacks=[Stop()])
    assert int(model.optimizer.iterations) == 1


def test_the_limits_of_keras_config_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keras.config, "max_epochs", lambda: 2)
    with pytest.warns(UserWarning, match="Limiting epochs to 2"):
        history = fit_compiled(small(), X, Y, BATCH, epochs=5, verbose=0)
    assert history.epoch == [0, 1]
    monkeypatch.setattr(keras.config, "max_steps_per_epoch", lambda: 3)
    with pytest.raises(ValueError, match=r"whole epochs.* Received: .*of 3"):
        fit_compiled(small(), X, Y, BATCH, verbose=0)
