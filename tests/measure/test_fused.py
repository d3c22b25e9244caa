"""The Triton kernel against the float64 reference: in Triton's interpreter, and on a GPU if there is one."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from test_statistics import AWKWARD, STATISTICS, agree, reference

from gradscope.measure import BINS, RAW, device, finish, fused, magnitude_histogram, raw_sums_into

HERE = Path(__file__).parent


@pytest.mark.skipif(not fused.available(), reason="Triton is not installed")
def test_agrees_in_the_interpreter() -> None:
    done = subprocess.run(
        [sys.executable, str(HERE / "fused_cases.py")],
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    agreed = {line.removeprefix("agrees: ") for line in done.stdout.splitlines()}
    assert set(AWKWARD) - {"empty"} <= agreed


@pytest.mark.skipif(not fused.available(), reason="Triton is not installed")
@pytest.mark.parametrize("counts", ["*fp64", "*i32"])
@pytest.mark.parametrize("elements", ["*fp32", "*fp16", "*bf16", "*fp64"])
def test_compiles_for_a_gpu_that_need_not_be_there(elements: str, counts: str) -> None:
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    signature = {"x": elements, "partial": "*fp64", "counts": counts, "n": "i32", "tiles": "i32"}
    constants = {"COUNTED": counts == "*i32", "TILE": fused.BLOCK, "WIDTH": fused.PARTS}
    constants |= {"OCCUPIED": BINS, "WIDE": fused.SLOTS}
    source = ASTSource(
        fn=fused._partial_sums,
        signature={**signature, **dict.fromkeys(constants, "constexpr")},
        constexprs={(list({**signature, **constants}).index(k),): v for k, v in constants.items()},
    )
    compiled = compile(source, target=GPUTarget("cuda", 90, 32))
    assert len(compiled.asm["cubin"]) > 1000


def test_a_kernel_that_cannot_be_built_is_replaced_with_a_warning(monkeypatch) -> None:
    def unbuildable(t: torch.Tensor, row: torch.Tensor, counts: None) -> None:
        raise RuntimeError("no C compiler")

    monkeypatch.setattr(device, "fused_sums_into", unbuildable)
    monkeypatch.setattr(device, "_broken", [])
    monkeypatch.setattr(torch.cuda, "device", lambda _: contextlib.nullcontext())
    row = torch.zeros(len(RAW), dtype=torch.float64)
    with pytest.warns(UserWarning, match="no C compiler"):
        assert not device._fused(torch.ones(3), row, None)
    assert not device._fused(torch.ones(3), row, None)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("case", AWKWARD)
def test_agrees_on_a_gpu(case: str) -> None:
    t = AWKWARD[case].cuda()
    row = torch.zeros(len(RAW), dtype=torch.float64, device="cuda")
    counts = torch.zeros(BINS, dtype=torch.int32, device="cuda")
    raw_sums_into(t, row, counts)
    torch.cuda.synchronize()
    assert (counts.cpu().numpy() == magnitude_histogram(AWKWARD[case])).all()
    agree(dict(zip(STATISTICS, finish(row.cpu().numpy()), strict=True)), reference(AWKWARD[case]))
