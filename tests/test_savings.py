"""What makes a step quick changes no number: each short cut against the long way."""

import pytest
import torch
from torch.nn.utils import get_total_norm

from vaestro.core import total
from vaestro.families.base import split, stack
from vaestro.priors import StandardNormal
from vaestro.training.loop import norm_of


@pytest.mark.parametrize("event_dims", [0, 1, 3])
@pytest.mark.parametrize("params", [1, 2, 3])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_parts_of_the_channels_are_those_of_the_stack(event_dims: int, params: int, dtype: torch.dtype) -> None:
    channels = params * (4 if event_dims else 1)
    h = torch.randn(5, 2, channels, *(3,) * (max(event_dims, 1) - 1), dtype=dtype, requires_grad=True)
    parts, expected = split(h, params, event_dims), stack(h, params, event_dims).unbind(-1)
    assert len(parts) == params
    for part, other in zip(parts, expected, strict=True):
        assert part.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        assert torch.equal(part, other)
    weights = [torch.randn_like(p) for p in parts]
    gradients = [torch.autograd.grad(sum((w * p).sum() for w, p in zip(weights, ps, strict=True)), h)[0] for ps in (parts, expected)]
    assert torch.equal(*gradients)


def test_a_whole_of_one_part_is_not_copied() -> None:
    h = torch.randn(5, 4, requires_grad=True)
    assert split(h, 1, 1)[0] is h


def test_the_norm_is_torchs_own() -> None:
    gradients = [torch.randn(300, 7), torch.randn(1), torch.zeros(3)]
    assert torch.equal(norm_of(gradients), get_total_norm(gradients))
    assert norm_of([]) == 0.0
    for broken in (torch.inf, torch.nan):
        assert not norm_of([*gradients, torch.tensor([broken])]).isfinite()


def test_a_sum_of_one_term_is_that_term() -> None:
    x = torch.randn(3, requires_grad=True)
    assert total([x]) is x
    assert torch.equal(total([x, 2.0, x]), x + 2.0 + x)
    assert total([]) == 0.0
    assert isinstance(total([1.5, 2.0]), torch.Tensor)


def test_the_standard_normal_keeps_nothing_in_a_checkpoint_and_follows_its_device_and_dtype() -> None:
    prior = StandardNormal((2, 3))
    assert not prior.state_dict()
    p = prior.double()().base_dist  # type: ignore[attr-defined]
    assert torch.equal(p.loc, torch.zeros(2, 3, dtype=torch.float64))
    assert torch.equal(p.scale, torch.ones(2, 3, dtype=torch.float64))
