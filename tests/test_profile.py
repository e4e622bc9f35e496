"""A step of training reads no number out of a tensor: on a GPU each would wait for the device."""

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from vaestro.data.schema import Binary, Field, Integer, Schema
from vaestro.recipes import parse
from vaestro.testing.waiting import reads
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
    "gan",
    "bigan",
    "ali",
    "soft_intro_vae",
    "perceptual_vae",
    "perceptual_vae:distance=focal_frequency",
    "capacity",
    "free_bits_vae",
    "geco",
    "curriculum",
    "delta_vae",
    "delta_gaussian",
    "vae:likelihood=gaussian_tracked",
    "semi_amortised",
    "semi_amortised:slope=exact",
    "dreg:samples=3",
    "rws:sleep=0.5",
    "tvo:law=bernoulli",
    "vimco",
    "reinforce",
    "vq_vae:hidden=4x4",
    "rvq_vae:hidden=4x4,decay=none",
    "fsq_vae:hidden=4x4",
    "dvae:hidden=4x4",
    "categorical_vae:gradient=straight_through",
    "beta_tc_vae",
    "beta_tc_vae:estimator=weighted",
    "factor_vae",
    "dip_vae",
    "info_vae",
    "joint_vae",
    "categorical_vae:gradient=vimco",
    "categorical_vae:gradient=enumerated,variables=2,classes=3",
)


def waits(loop: Loop, steps: int = 3) -> list[str]:
    """The reads of a number out of a tensor in some steps of a warm loop."""
    x = (torch.rand(16, 1, 8, 8) < 0.5).float()
    for _ in range(2):
        loop.step(lambda: {"x": x})
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        for _ in range(steps):
            loop.step(lambda: {"x": x})
    return reads(seen)[0]


def a_loop(call: str) -> Loop:
    return Loop(parse(call).cook(SCHEMA), 0, 100, torch.device("cpu"))


@pytest.mark.parametrize("call", CALLS)
def test_a_step_waits_for_nothing(call: str) -> None:
    assert waits(a_loop(call)) == []


def test_a_lead_is_read_once_a_window() -> None:
    """The lagging encoder's stopping rule is the one that must reach the host: 50 times in a run, not at every step."""
    inside = Loop(parse("lagging:inner=2").cook(SCHEMA), 0, 10_000, torch.device("cpu"))
    assert waits(inside) == []
    assert waits(a_loop("lagging:inner=2"), steps=4).count("aten::item") == 2  # at 100 steps a window is two


def test_the_best_scale_waits_for_nothing() -> None:
    grey = Schema("grey", (Field("x", Integer(16), (1, 8, 8)),), {"train": 64, "validation": 8, "test": 8})
    assert waits(Loop(parse("sigma_vae").cook(grey), 0, 100, torch.device("cpu"))) == []


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
