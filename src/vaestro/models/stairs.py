"""Stairs over maps of pixels: the one builder of convolutional hierarchies of any depth and any resolutions, and the styles of three papers."""

import math
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import torch
from torch import nn

from vaestro.conditional import Conditional
from vaestro.data.schema import Field
from vaestro.errors import UsageError
from vaestro.families import Gaussian, outputs
from vaestro.families.likelihoods import Likelihood
from vaestro.families.pairs import Relate, absolute, relative
from vaestro.models.hierarchies import Climb, Group, TopDown
from vaestro.networks.base import Network
from vaestro.networks.blocks import Added, Keep, Shrink, Taken, Unpool, bottleneck, conv, decoder_cell, encoder_cell, over, stored
from vaestro.networks.convolutional import Size, sizes
from vaestro.networks.reading import reading
from vaestro.posteriors.base import Amortised
from vaestro.posteriors.maps import MapFlow

TENTH = 0.1  # of a residual cell, as in NVAE and in the IAF paper's code


class Plan(NamedTuple):
    """How deep and how wide: `blocks` latent groups at each resolution, the smallest first and the image's own last; each resolution is half of the next.

    The state has `width` channels, a latent group `latents`.
    """

    blocks: tuple[int, ...]
    width: int
    latents: int


At: TypeAlias = Callable[[Size], nn.Module]  # a size of map to the module that acts there


class Style(NamedTuple):
    """What the blocks of a hierarchy are made of, by the size of the map they act on."""

    climb: At  # on the way up: [width] to [width]
    above: At  # what the state says: [width] to [2 latents], or to [2 latents + width] with what the state gains
    posterior: At  # a module of the state and what was seen, [width] each, that returns a distribution over [latents]
    merge: At  # [width + latents] to [width]
    relate: Relate = absolute


def quiet(layers: nn.Sequential, gain: float = 0.0) -> nn.Sequential:
    """The layers with their last convolution at `gain` times its weights: at 0 they start by saying nothing."""
    last = [m for m in layers.modules() if isinstance(m, nn.Conv2d)][-1]
    with torch.no_grad():
        last.weight.mul_(gain)
    return layers


def very_deep(plan: Plan, keep: Keep = stored) -> Style:
    """Bottlenecks without norms, the last weights of residual ones scaled by 1 / sqrt(depth) (Child 2021, section 3 and figure 3)."""
    width, latents = plan.width, plan.latents
    calm = 1 / math.sqrt(max(1, sum(plan.blocks)))

    def added(size: Size) -> nn.Module:
        return Added(bottleneck(width, width, size, calm), keep=keep)

    return Style(
        climb=added,
        above=lambda size: over(size, width, 2 * latents + width, *bottleneck(width, 2 * latents + width, size, 0.0)),
        posterior=lambda size: Conditional(over(size, 2 * width, 2 * latents, *bottleneck(2 * width, 2 * latents, size)), Gaussian(3)),
        merge=lambda size: over(size, width + latents, width, Taken(width, latents, calm, added(size))),
    )


def residual_normal(plan: Plan, keep: Keep = stored) -> Style:
    """Residual cells with depthwise convolutions, squeeze and excite, and a posterior relative to the prior (Vahdat & Kautz 2020, sections 3.1 and 3.2)."""
    width, latents = plan.width, plan.latents

    def asked(size: Size) -> nn.Module:
        return over(size, 2 * width, 2 * latents, *quiet(nn.Sequential(conv(2 * width, width, 1), nn.SiLU(), conv(width, 2 * latents, 3)), TENTH))

    return Style(
        climb=lambda size: Added(encoder_cell(width, size), TENTH, keep),
        above=lambda size: over(size, width, 2 * latents, *quiet(nn.Sequential(nn.SiLU(), conv(width, 2 * latents, 1)))),
        posterior=lambda size: Conditional(asked(size), Gaussian(3)),
        merge=lambda size: over(size, width + latents, width, conv(width + latents, width, 1), Added(decoder_cell(width, size), TENTH, keep)),
        relate=relative,
    )


def residual_iaf(plan: Plan, flows: int, keep: Keep = stored) -> Style:
    """Residual blocks of two 3x3 convolutions, and `flows` inverse autoregressive steps in each posterior (Kingma et al. 2016, section 4 and figure 3)."""
    width, latents = plan.width, plan.latents

    def twice(inputs: int, middle: int, out: int) -> nn.Sequential:
        return nn.Sequential(nn.ELU(), conv(inputs, middle, 3), nn.ELU(), conv(middle, out, 3))

    def posterior(size: Size) -> nn.Module:
        law = MapFlow((latents, *size), flows, width)
        return Amortised(over(size, 2 * width, law.numbers, nn.ELU(), conv(2 * width, law.numbers, 3)), law)

    def added(size: Size) -> nn.Module:
        return Added(twice(width, width, width), TENTH, keep)

    return Style(
        climb=added,
        above=lambda size: over(size, width, 2 * latents + width, *quiet(nn.Sequential(nn.ELU(), conv(width, 2 * latents + width, 3)))),
        posterior=posterior,
        merge=lambda size: over(size, width + latents, width, Taken(width, latents, TENTH, added(size))),
    )


def check_plan(field: Field, plan: Plan) -> None:
    """Raises UsageError where a plan has no top, or the field is no picture."""
    if len(field.shape) != 3:
        raise UsageError(f"a hierarchy of maps needs images, and the rows of {field.name!r} are shaped {field.shape}; use ladder_vae or top_down for vectors")
    if not plan.blocks or plan.blocks[0] < 1:
        raise UsageError(f"blocks={'x'.join(map(str, plan.blocks))} has no latent group at its smallest resolution, the first number; give one or more there")


def stairs(field: Field, plan: Plan, style: Style, likelihood: Likelihood) -> TopDown:
    """A hierarchy of `plan` in `style` over pictures of any size, odd ones too.

    The way up halves the map between resolutions, the way down enlarges it again and adds learnt numbers for each place; every group at a resolution
    reads the last map of the way up there. Raises UsageError for rows that are no pictures, and for a plan without a top.
    """
    check_plan(field, plan)
    levels = sizes(field.shape, len(plan.blocks) - 1)  # the image's own size first
    steps, enter = [], []
    for level, (size, groups) in enumerate(zip(reversed(levels), plan.blocks, strict=True)):
        enter += [Unpool(plan.width, size)] if level else []
        for _ in range(groups):
            entered = over(size, plan.width, plan.width, *enter)
            steps.append(Group(entered, style.above(size), style.posterior(size), style.merge(size), plan.latents, style.relate))
            enter = []
    family = likelihood(field)
    numbers = outputs(family, field.shape)
    head = over(levels[0], plan.width, numbers[0], *enter, style.climb(levels[0]), nn.SiLU(), conv(plan.width, numbers[0], 3))
    return TopDown(_climb(field, plan, style, levels), steps, Conditional(head, family), (plan.width, *levels[-1]))


def _climb(field: Field, plan: Plan, style: Style, levels: list[Size]) -> Climb:
    """The way up: at each resolution as many blocks as groups read them, one at least."""
    stages: list[nn.Module] = []
    for i, (size, groups) in enumerate(zip(levels, reversed(plan.blocks), strict=True)):
        before = field.shape if i == 0 else (plan.width, *levels[i - 1])
        first = conv(field.shape[0], plan.width, 3) if i == 0 else Shrink()
        net = Network(nn.Sequential(first, *(style.climb(size) for _ in range(max(1, groups)))), before, (plan.width, *size))
        stages.append(net if i else reading(field.kind, net))
    return Climb(stages, plan.blocks[::-1])
