"""Peers in PyTorch: eager, compiled, and as a CUDA graph; the data is on the device."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from bench.peers.registry import Network

# Rarely used pixels leave denormal numbers in Adam's moments, which a CPU computes slowly. XLA
# and TensorFlow flush them too. Threads inherit this, so it comes before there are any.
torch.set_flush_denormal(True)


class _TorchPeer:
    def __init__(
        self,
        network: Network,
        weights: list[np.ndarray],
        x: np.ndarray,
        y: np.ndarray,
        orders: list[np.ndarray],
        device: str,
        **adam: Any,
    ) -> None:
        self.device = torch.device("cpu" if device == "cpu" else "cuda")

        def put(array: np.ndarray) -> torch.Tensor:
            return torch.tensor(array, device=self.device)

        self.x, self.y = put(x), put(y.astype("int64"))
        self._orders = [put(order).view(-1, network.batch_size) for order in orders]
        layers: list[nn.Module] = []
        with torch.no_grad():
            for kernel, bias in zip(weights[::2], weights[1::2], strict=True):
                linear = nn.Linear(*kernel.shape)
                linear.weight.copy_(torch.tensor(kernel.T))
                linear.bias.copy_(torch.tensor(bias))
                layers += [linear, nn.ReLU()]
        self.model = nn.Sequential(*layers[:-1]).to(self.device)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3, eps=1e-7, **adam)
        self._step = self._make_step()

    def _make_step(self) -> Callable[[torch.Tensor], torch.Tensor]:
        return self.step

    def step(self, indices: torch.Tensor) -> torch.Tensor:
        """One training step on the examples of these indices; its loss."""
        x = self.x.index_select(0, indices)
        if x.dtype == torch.uint8:
            x = x.float() / 255
        loss = functional.cross_entropy(self.model(x), self.y.index_select(0, indices))
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    def train(self, which: Sequence[int]) -> float:
        begin = time.perf_counter()
        for index in which:
            total = torch.zeros((), device=self.device)
            for indices in self._orders[index]:
                total += self._step(indices)
        float(total)
        return time.perf_counter() - begin

    def weights(self) -> list[np.ndarray]:
        found = [parameter.detach().cpu().numpy() for parameter in self.model.parameters()]
        return [array.T.copy() for array in found]  # kernels lie transposed here


class Eager(_TorchPeer):
    """Eager steps with the fused Adam."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments, fused=True)


class Compiled(_TorchPeer):
    """`torch.compile` of the whole step: forward, backward and Adam.

    Not the fused Adam, whose kernel the compiler cannot look into.
    """

    def _make_step(self) -> Callable[[torch.Tensor], torch.Tensor]:
        # What was compiled for other cells in this process counts against a limit, past which
        # steps run eagerly.
        torch.compiler.reset()
        compiled: Callable[[torch.Tensor], torch.Tensor] = torch.compile(self.step, dynamic=False)
        return compiled


class Graph(_TorchPeer):
    """The whole step captured as a CUDA graph, as PyTorch's notes on CUDA semantics show."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments, fused=True, capturable=True)

    def _make_step(self) -> Callable[[torch.Tensor], torch.Tensor]:
        indices = self._orders[0][0].clone()
        before = [parameter.detach().clone() for parameter in self.model.parameters()]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):  # warm-up, before the capture and off the default stream
                self.step(indices)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            loss = self.step(indices)
        # What the warm-up learnt is undone in place: the graph refers to these very tensors.
        with torch.no_grad():
            for parameter, value in zip(self.model.parameters(), before, strict=True):
                parameter.copy_(value)
            for state in self.optimizer.state.values():
                for value in state.values():
                    value.zero_()

        def replay(batch: torch.Tensor) -> torch.Tensor:
            indices.copy_(batch)
            graph.replay()
            return loss

        return replay
