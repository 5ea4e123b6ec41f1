"""Programs: what a step launches is counted right, from text and from this machine's compiler."""

import json
import re

import pytest

from bench.hlo import read_loop
from bench.programs import Options, describe, epoch_text, main

# By hand, in the form XLA prints for a GPU: two products by cuBLAS, one with its bias as an
# epilogue, a fusion that holds a third, a copy, and a loop whose trip count is known.
GPU = """HloModule jit_epoch, is_scheduled=true

%fused (a: f32[4,4], b: f32[4,4]) -> f32[4,4] {
  %a = f32[4,4]{1,0} parameter(0)
  %b = f32[4,4]{1,0} parameter(1)
  ROOT %d = f32[4,4]{1,0} dot(%a, %b), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}

%body (p: (s32[], f32[4,4])) -> (s32[], f32[4,4]) {
  %p = (s32[], /*index=1*/f32[4,4]{1,0}) parameter(0)
  %w = f32[4,4]{1,0} get-tuple-element(%p), index=1
  %g = (f32[4,4]{1,0}, s8[64]{0}) custom-call(%w, %w), custom_call_target="__cublas$gemm", \
backend_config={"gemm_backend_config":{"epilogue":"DEFAULT"}}
  %r = f32[4,4]{1,0} custom-call(%w, %w), custom_call_target="__cublas$lt$matmul", \
backend_config={"gemm_backend_config":{"epilogue":"BIAS_RELU"}}
  %f = f32[4,4]{1,0} fusion(%w, %r), kind=kCustom, calls=%fused
  %c = f32[4,4]{1,0} copy(%f)
  ROOT %t = (s32[], f32[4,4]{1,0}) tuple(%p, %c)
}

%cond (p: (s32[], f32[4,4])) -> pred[] {
  %p = (s32[], f32[4,4]{1,0}) parameter(0)
  ROOT %l = pred[] custom-call(%p), custom_call_target="x"
}

ENTRY %main (x: f32[4,4]) -> (s32[], f32[4,4]) {
  %x = f32[4,4]{1,0} parameter(0)
  %t = (s32[], f32[4,4]{1,0}) tuple(%x, %x)
  ROOT %w = (s32[], f32[4,4]{1,0}) while(%t), condition=%cond, body=%body, \
backend_config={"known_trip_count":{"n":"468"}}
}
"""


def test_what_a_step_launches_is_counted():
    loop = read_loop(GPU)
    assert loop.trip_count == 468
    assert dict(loop.kernels) == {"custom-call": 2, "fusion": 1, "copy": 1}
    assert (loop.products, loop.epilogues, loop.host_transfers) == (3, 1, [])


def test_branches_are_counted_and_what_is_in_them():
    branch = "%h = f32[4,4]{1,0} conditional(%w, %w, %w), branch_computations={%one, %other}\n"
    inner = "%{} (p: f32[4,4]) -> f32[4,4] {{\n  %p = f32[4,4]{{1,0}} parameter(0)\n"
    inner += "  ROOT %y = f32[4,4]{{1,0}} negate(%p)\n}}\n\n"
    text = GPU.replace("  %c = ", f"  {branch}  %c = ")
    text = text.replace("%body", inner.format("one") + inner.format("other") + "%body", 1)
    loop = read_loop(text)
    assert loop.branches == 1
    assert dict(loop.kernels) == {"custom-call": 2, "fusion": 1, "copy": 1, "negate": 2}
    assert "1 branches, which a GPU may ask the host for" in describe("arm", loop)
    assert "branches" not in describe("arm", read_loop(GPU))


def test_the_counts_are_saved(tmp_path):
    (tmp_path / "epoch.hlo").write_text(GPU)
    saved = tmp_path / "counts.json"
    assert main(["--hlo", str(tmp_path / "epoch.hlo"), "--save", str(saved)]) == 0
    (counts,) = json.loads(saved.read_text()).values()
    assert counts["kernels"] == {"custom-call": 2, "fusion": 1, "copy": 1}
    assert (counts["trip_count"], counts["products"], counts["host_transfers"]) == (468, 3, [])


@pytest.mark.parametrize(
    "line",
    [
        '%h = f32[4,4]{1,0} custom-call(%w), custom_call_target="xla_ffi_python_cpu_callback"',
        "%h = token[] outfeed(%w), outfeed_shape=f32[4,4]{1,0}",
        "%h = (f32[4,4]{1,0}, u32[], token[]) send(%w), channel_id=1, is_host_transfer=true",
        "%h = f32[4,4]{1,0:S(5)} copy(%w)",
    ],
)
def test_a_transfer_to_the_host_is_found(line, tmp_path, capsys):
    text = GPU.replace("  %c = f32", f"  {line}\n  %c = f32")
    assert read_loop(text).host_transfers == ["h"]
    (tmp_path / "p.txt").write_text(text)
    assert main(["--hlo", str(tmp_path / "p.txt")]) == 1
    assert "transfers to the host: h" in capsys.readouterr().out


def test_an_unknown_trip_count_is_a_failure(tmp_path, capsys):
    (tmp_path / "p.txt").write_text(re.sub(r", backend_config=\{\"known.*", "", GPU))
    assert main(["--hlo", str(tmp_path / "p.txt")]) == 1
    assert "unknown steps" in capsys.readouterr().out


def test_what_is_no_program_is_refused(tmp_path, capsys):
    (tmp_path / "p.txt").write_text("nothing")
    for argv in (["--hlo", str(tmp_path / "p.txt")], ["--hlo", "no such"], ["--arms", "x"]):
        assert main(argv) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert main(["--precision", "tf32"]) == 2


@pytest.fixture(scope="module")
def programs():
    options = Options(units=32)
    return {arm: read_loop(epoch_text(options, arm, "cpu")) for arm in ("dense", "fixed")}


def test_an_epoch_is_one_loop_without_the_host(programs):
    for loop in programs.values():
        assert loop.trip_count == 60_000 // 128
        assert loop.host_transfers == []
        assert loop.products == 8  # three layers forward and backward, less the first input's


def test_a_fixed_bias_needs_no_more_kernels(programs):
    assert programs["fixed"].kernels.total() < programs["dense"].kernels.total()


def test_tf32_reaches_the_program_and_float32_is_ieee():
    """What XLA is given says how a GPU may round, whatever the machine it is compiled on."""
    exact = epoch_text(Options(units=8, layers=2), "fixed", "cpu", "hlo")
    rounded = epoch_text(Options(units=8, layers=2, precision="tf32"), "fixed", "cpu", "hlo")
    highest = "operand_precision={highest,highest}"
    assert exact.count(highest) == exact.count(" dot(") > 0
    assert highest not in rounded
