"""A step of training reads no number out of a tensor: on a GPU each would wait for the device."""

import pytest
import torch
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile

from vaestro.data.schema import Binary, Field, Schema
from vaestro.recipes import parse
from vaestro.training.loop import Loop

SCHEMA = Schema("pictures", (Field("x", Binary(), (1, 8, 8)),), {"train": 64, "validation": 8, "test": 8})
CALLS = (
    "vae",
    "vae:clip=1,ema=0.9,optimizer=adamw",
    "vae:optimizer=sgd",
    "iwae:samples=3",
    "vamp:components=5",
    "vae:warm_up=0.5",
    "top_down",
    "vae_gan",
    "dreg:samples=3",
    "rws:sleep=0.5",
    "tvo:law=bernoulli",
    "vimco",
    "reinforce",
)
WAITS = ("aten::item", "aten::_local_scalar_dense", "aten::is_nonzero")


def inside_fused_kernel(event: FunctionEvent) -> bool:
    """Whether an operator runs inside a fused optimiser, whose CPU kernel reads its own step count; the CUDA kernel reads it on the device."""
    while event.cpu_parent is not None:
        event = event.cpu_parent
        if event.name.startswith("aten::_fused_"):
            return True
    return False


def waits(loop: Loop, steps: int = 3) -> list[str]:
    """The reads of a number out of a tensor in some steps of a warm loop."""
    x = (torch.rand(16, 1, 8, 8) < 0.5).float()
    for _ in range(2):
        loop.step(lambda: {"x": x})
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        for _ in range(steps):
            loop.step(lambda: {"x": x})
    return [e.name for e in seen.events() or [] if e.name in WAITS and not inside_fused_kernel(e)]


def a_loop(call: str) -> Loop:
    return Loop(parse(call).cook(SCHEMA), 0, 100, torch.device("cpu"))


@pytest.mark.parametrize("call", CALLS)
def test_a_step_waits_for_nothing(call: str) -> None:
    assert waits(a_loop(call)) == []


def test_waiting_is_seen() -> None:
    """The same count tells of the one place that waits, and of an optimiser without a fused kernel."""
    loop = a_loop("vae")
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        loop.step(lambda: {"x": torch.zeros(4, 1, 8, 8)})
        loop.flush()
    assert any(e.key == "aten::item" for e in seen.key_averages())
    assert waits(a_loop("vae:optimizer=adamax"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("call", CALLS)
def test_torch_finds_no_synchronising_call_in_a_step(call: str) -> None:
    device = torch.device("cuda")
    loop = Loop(parse(call).cook(SCHEMA), 0, 100, device)
    x = (torch.rand(16, 1, 8, 8, device=device) < 0.5).float()
    for _ in range(2):
        loop.step(lambda: {"x": x})
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            loop.step(lambda: {"x": x})
    finally:
        torch.cuda.set_sync_debug_mode("default")
