"""The examples in the docstrings run, and print what they say."""

import doctest
from importlib import import_module

import pytest

MODULES = [
    "activations",
    "biases",
    "by_hand",
    "epochs",
    "freezing",
    "layers",
    "losses",
    "networks",
    "npz",
    "plain",
    "plots",
    "replicas",
    "stacked",
    "text",
    "training",
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    outcome = doctest.testmod(import_module(f"fixedbias.{name}"))
    assert outcome.failed == 0
    assert outcome.attempted > 0
