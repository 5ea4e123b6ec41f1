"""Only `--layer` runs code from outside; nothing is unpickled, and Keras's safe mode stays on."""

import ast
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted([*ROOT.glob("fixedbias/*.py"), *ROOT.glob("bench/*.py")])
NEVER = {"eval", "exec", "compile", "__import__", "enable_unsafe_deserialization", "from_pickle"}


def calls(tree: ast.AST) -> list[str]:
    """What is called by its bare name, or as the last part of a dotted one under `keras`."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            function = node.func
            if isinstance(function, ast.Name):
                found.append(function.id)
            elif isinstance(function, ast.Attribute) and "unsafe" in function.attr:
                found.append(function.attr)
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_no_source_unpickles_evaluates_or_leaves_safe_mode(path):
    tree = ast.parse(path.read_text("utf-8"))
    assert not NEVER & set(calls(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            assert not {"pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"} & {*names}
        if isinstance(node, ast.keyword):
            value = getattr(node.value, "value", None)
            assert (node.arg, value) not in {("safe_mode", False), ("allow_pickle", True)}


class Bomb:
    """Leaves a file where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = str(mark)

    def __reduce__(self):
        return open, (self.mark, "w")


def test_a_pickle_in_a_data_or_bias_file_is_not_run(tmp_path):
    from fixedbias import bias_values
    from fixedbias.idx import DatasetError, read_npz

    mark = tmp_path / "mark"
    objects = np.array([Bomb(mark)], dtype=object)
    np.savez(tmp_path / "mnist.npz", x_train=objects, **{"0": objects})
    (tmp_path / "bare.npz").write_bytes(pickle.dumps(Bomb(mark)))
    with zipfile.ZipFile(tmp_path / "bare2.npz", "w") as archive:
        archive.writestr("0.npy", pickle.dumps(Bomb(mark)))
    for name in ("mnist", "bare", "bare2"):
        with pytest.raises(DatasetError):
            read_npz(tmp_path / f"{name}.npz")
        with pytest.raises(ValueError, match=name):
            bias_values(f"file:{tmp_path / name}.npz", 0, 1)
    assert not mark.exists()


def _leave_a_mark(*args, **kwargs):
    Path("mark").touch()


_lambda = lambda *args, **kwargs: _leave_a_mark()  # noqa: E731


@pytest.mark.parametrize("argument", ["bias", "activation", "kernel_initializer"])
def test_a_lambda_in_a_layers_config_is_not_run(argument, tmp_path, monkeypatch):
    import keras

    from fixedbias import FixedBiasDense

    monkeypatch.chdir(tmp_path)
    with pytest.warns(UserWarning, match="unsafe"):
        code = keras.saving.serialize_keras_object(_lambda)
    assert code["class_name"] == "__lambda__"
    config = FixedBiasDense(2).get_config() | {argument: code}
    with pytest.raises((ValueError, TypeError), match=r"(?i)lambda|safe"):
        FixedBiasDense.from_config(config)
    assert not (tmp_path / "mark").exists()


def test_a_users_file_is_run_by_its_name_after_layer_and_by_nothing_else(tmp_path):
    (tmp_path / "mine.py").write_text("open('mark', 'w')\nraise RuntimeError('it ran')")
    (tmp_path / "sitecustomize.txt").touch()
    argv = [sys.executable, "-m", "bench.grid", "--dry-run", "--layer", "mine.py:Layer"]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert "Layer" in done.stdout
    assert not (tmp_path / "mark").exists()  # a plan runs nothing
    help_text = subprocess.run([*argv[:3], "--help"], capture_output=True, text=True, timeout=60)
    assert "runs that code" in " ".join(help_text.stdout.replace("│", " ").split())
