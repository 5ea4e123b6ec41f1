"""Time for fake arms: it passes only where one of them says so."""

import random

from bench.timing import Burst


class Clock:
    """Time that passes only where a fake arm says so."""

    def __init__(self) -> None:
        self.now = 1024.0  # clocks start anywhere
        self.log: list[str] = []

    def __call__(self) -> float:
        return self.now

    def arm(self, name: str, seconds: float = 0.03, noise: float = 0.0) -> Burst:
        rng = random.Random(name)

        def launch() -> str:
            self.log.append(name)
            self.now += seconds * (1 + noise * rng.uniform(-1, 1))
            return name

        def wait(launched: str) -> None:
            assert launched == name
            self.log.append("wait")

        return Burst(launch, wait, examples=10)
