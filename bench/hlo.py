"""XLA's compiled programs as text: what a step of an epoch's loop is made of."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass
class Loop:
    """The loop of an epoch.

    Args:
        trip_count: Steps, where XLA knows them when it compiles; else None, and a GPU has to ask
            the host before every step.
        kernels: Operations that a step launches, by kind; what costs no launch is left out.
        products: Matrix products among them, those inside fusions too.
        epilogues: Products that a library's kernel follows with bias or activation at once.
        host_transfers: Operations of a step that the host takes part in.
        branches: Conditionals of a step: a GPU may have to ask the host which way to go.
    """

    trip_count: int | None
    kernels: Counter[str] = field(default_factory=Counter)
    products: int = 0
    epilogues: int = 0
    host_transfers: list[str] = field(default_factory=list)
    branches: int = 0


@dataclass(frozen=True)
class _Operation:
    name: str
    kind: str
    line: str

    def called(self, *roles: str) -> list[str]:
        """Names of the computations it calls in these roles."""
        found = []
        for role in roles:
            for names in re.findall(rf"\b{role}=(\{{[^}}]*\}}|%?[\w.\-]+)", self.line):
                found += re.findall(r"[\w.\-]+", names)
        return found


# Their results are there already, or are places in memory.
_FREE = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all"),
    *("opt-barrier", "optimization-barrier", "partition-id", "replica-id", "add-dependency"),
}
_HOST = {"infeed", "outfeed", "send", "recv", "send-done", "recv-done"}
_HOST_TARGET = re.compile("callback|MoveToHost|SendToHost|RecvFromHost|PyFunc|host_", re.IGNORECASE)
_PRODUCT_TARGET = re.compile("gemm|matmul|dot", re.IGNORECASE)


def read_loop(text: str) -> Loop:
    """The largest loop of a program.

    Args:
        text: Optimised HLO.

    Raises:
        ValueError: It is no HLO text, or has no loop.

    Example:

    >>> loop = read_loop('''HloModule m
    ... %body (p: (s32[], f32[4,4])) -> (s32[], f32[4,4]) {
    ...   %p = (s32[], f32[4,4]) parameter(0)
    ...   %w = f32[4,4] get-tuple-element(%p), index=1
    ...   %y = f32[4,4] dot(%w, %w), lhs_contracting_dims={1}, rhs_contracting_dims={0}
    ...   ROOT %t = (s32[], f32[4,4]) tuple(%p, %y)
    ... }
    ... ENTRY %e (x: (s32[], f32[4,4])) -> (s32[], f32[4,4]) {
    ...   ROOT %l = (s32[], f32[4,4]) while(%x), condition=%c, body=%body, \\
    ...     backend_config={"known_trip_count":{"n":"7"}}
    ... }'''.replace("\\\\\\n", ""))
    >>> loop.trip_count, dict(loop.kernels), loop.products
    (7, {'dot': 1}, 1)
    """
    computations = _computations(text)
    loops = [
        _loop(operation, computations)
        for operations in computations.values()
        for operation in operations
        if operation.kind == "while"
    ]
    if not loops:
        raise ValueError(
            "A program must be optimised HLO text with a loop. "
            f"Received: {len(computations)} computations without one"
        )
    return max(loops, key=lambda loop: loop.kernels.total())


def _computations(text: str) -> dict[str, list[_Operation]]:
    found: dict[str, list[_Operation]] = {}
    current: list[_Operation] = []
    for line in text.splitlines():
        if header := re.match(r"\s*(?:ENTRY\s+)?%?([\w.\-]+)\s*(?:\(.*\)\s*->.*)?\{\s*$", line):
            current = found.setdefault(header[1], [])
        elif operation := re.match(
            r"\s+(?:ROOT\s+)?%?([\w.\-]+)\s+=\s+(?:.*?\s)([a-z][a-z0-9\-]*)\(", line
        ):
            current.append(_Operation(operation[1], operation[2], line))
    return found


def _loop(operation: _Operation, computations: dict[str, list[_Operation]]) -> Loop:
    known = re.search(r"known_trip_count\W+n\W+(\d+)", operation.line)
    loop = Loop(int(known[1]) if known else None)
    (body,) = operation.called("body")
    for launched in _launched(body, computations):
        if launched.kind == "conditional":
            loop.branches += 1
            continue
        loop.kernels[launched.kind] += 1
        target = re.search(r'custom_call_target="([^"]*)"', launched.line)
        inner = [launched, *_inside(launched, computations)]
        loop.products += sum(one.kind in ("dot", "convolution") for one in inner)
        if target and _PRODUCT_TARGET.search(target[1]):
            loop.products += 1
            loop.epilogues += bool(re.search(r'"epilogue":"(?!DEFAULT")', launched.line))
        on_host = launched.kind in _HOST or "is_host_transfer=true" in launched.line
        # Memory space 5 is the host's.
        if on_host or (target and _HOST_TARGET.search(target[1])) or "S(5)" in launched.line:
            loop.host_transfers.append(launched.name)
    return loop


def _launched(name: str, computations: dict[str, list[_Operation]]) -> Iterator[_Operation]:
    """What a computation launches, calls and branches followed, loops within it taken once."""
    for operation in computations.get(name, []):
        if operation.kind in _FREE or operation.kind.endswith(("-done", "-update")):
            if operation.kind in _HOST:
                yield operation
            continue
        if operation.kind in ("call", "while", "conditional", "async-start"):
            roles = ("to_apply", "calls", "body", "branch_computations", "true_computation")
            inner = operation.called(*roles, "false_computation")
            if inner:
                if operation.kind == "conditional":
                    yield operation
                for one in inner:
                    yield from _launched(one, computations)
                continue
        yield operation


def _inside(
    operation: _Operation, computations: dict[str, list[_Operation]]
) -> Iterator[_Operation]:
    if operation.kind == "fusion":
        for name in operation.called("calls"):
            for one in computations.get(name, []):
                yield one
                yield from _inside(one, computations)
