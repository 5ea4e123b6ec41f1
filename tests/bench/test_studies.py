"""The studies that are kept with the code are accepted, and ask what they say."""

from pathlib import Path

from bench.config import parse
from fixedbias.biases import PRESETS

STUDIES = Path(__file__).parents[2] / "studies"


def test_the_study_of_presets_has_them_all_and_seeds_enough():
    options = parse(["--config", str(STUDIES / "bias_presets.toml")])
    assert set(options.bias) == set(PRESETS)
    assert options.data == "mnist"
    assert options.seeds >= 5
    assert len(options.layers) >= 3
    assert options.arms == ("dense", "fixed")
