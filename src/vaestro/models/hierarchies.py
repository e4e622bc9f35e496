"""Hierarchies of latents in which prior and posterior walk down the same stairs."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol, TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vaestro.conditional import through
from vaestro.core import Batch, Model, Program, Shape, Site
from vaestro.families import Gaussian
from vaestro.families.pairs import Relate, absolute
from vaestro.models.base import data_of

Views: TypeAlias = Tensor | tuple[Tensor, ...]  # what the way up leaves: one tensor for all steps, or one for each


class Laws(NamedTuple):
    """What a step says of its latent, and the state as the latent will change it."""

    prior: Distribution
    posterior: Distribution | None
    state: Tensor


class Stair(Protocol):
    """One latent of a hierarchy, as `TopDown` walks it."""

    def laws(self, state: Tensor, seen: Tensor | None) -> Laws:
        """p(z | above) and, if x was seen, q(z | above, x)."""

    def after(self, state: Tensor, z: Tensor) -> Tensor:
        """The state below, once z was drawn."""


class Step(nn.Module):
    """One latent group of a top-down hierarchy: p(z | above), q(z | above, x), and how z changes the state.

    `prior` is a module of the state and `posterior` of the state and what was seen, which return distributions.
    """

    def __init__(self, prior: nn.Module, posterior: nn.Module, merge: nn.Module) -> None:
        super().__init__()
        self.prior, self.posterior, self.merge = prior, posterior, merge

    def laws(self, state: Tensor, seen: Tensor | None) -> Laws:
        """Both, given the state."""
        return Laws(self.prior(state), None if seen is None else self.posterior(state, seen), state)

    def after(self, state: Tensor, z: Tensor) -> Tensor:
        """The state plus what `merge` makes of both."""
        return state + through(self.merge, state, z)


class Rung(nn.Module):
    """One latent vector of a ladder: it depends on the latent just above, and on what was seen at its height (Soenderby et al. 2016).

    `prior` is a module of the latent above, `posterior` of what was seen; `relate` merges the two.
    """

    def __init__(self, prior: nn.Module, posterior: nn.Module, relate: Relate) -> None:
        super().__init__()
        self.prior, self.posterior, self.relate = prior, posterior, relate

    def laws(self, state: Tensor, seen: Tensor | None) -> Laws:
        """Both, given the latent above."""
        p = self.prior(state)
        return Laws(p, None if seen is None else self.relate(p, self.posterior(seen)), state)

    def after(self, state: Tensor, z: Tensor) -> Tensor:
        """The latent itself is all that the next one knows."""
        return z


class Group(nn.Module):
    """One latent group of maps [latents, h, w] in a hierarchy over a state [width, h, w].

    The state enters this resolution by `enter`; `above` turns it into the two numbers a latent of p and, if it has more channels, what the state gains
    whatever is drawn; `posterior` is a module of the state and what was seen; `merge` maps the state and the latent, side by side, to the next state.
    """

    def __init__(self, enter: nn.Module, above: nn.Module, posterior: nn.Module, merge: nn.Module, latents: int, relate: Relate = absolute) -> None:
        super().__init__()
        self.enter, self.above, self.posterior, self.merge = enter, above, posterior, merge
        self.numbers, self.family, self.relate = 2 * latents, Gaussian(3), relate

    def laws(self, state: Tensor, seen: Tensor | None) -> Laws:
        """Both, given the state, and the state that has entered and gained."""
        state = through(self.enter, state)
        h = through(self.above, state)
        p, gain = self.family(h[..., : self.numbers, :, :]), h[..., self.numbers :, :, :]
        q = None if seen is None else self.relate(p, self.posterior(state, seen))
        return Laws(p, q, state + gain if gain.shape[-3] else state)

    def after(self, state: Tensor, z: Tensor) -> Tensor:
        """What `merge` makes of both."""
        return through(self.merge, state, z)


class Climb(nn.Module):
    """The way up: `stages` one after the other, of which stage i serves `groups[i]` steps of the way down. x to a tensor for each step, the top first."""

    def __init__(self, stages: Sequence[nn.Module], groups: Sequence[int]) -> None:
        super().__init__()
        self.stages, self.groups = nn.ModuleList(stages), tuple(groups)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """What each step reads of x."""
        found: list[Tensor] = []
        for stage, groups in zip(self.stages, self.groups, strict=True):
            x = stage(x)
            found += [x] * groups
        return tuple(reversed(found))


class TopDown(Model):
    """A hierarchy: prior and posterior walk down the same stairs, and each step sees what was drawn above it.

    p(z_1) p(z_2 | z_1) ... p(x | z_1..L) with q(z_l | z_<l, x) (Soenderby et al. 2016; Kingma et al. 2016, section 4). z1 is the top, where papers often
    count from the bottom. The walk starts from a learnt state shaped `width`; with None, from nothing.
    """

    top: Tensor

    def __init__(self, encoder: nn.Module, steps: Sequence[nn.Module], likelihood: nn.Module, width: int | Shape | None) -> None:
        super().__init__()
        self.encoder, self.steps, self.likelihood = encoder, nn.ModuleList(steps), likelihood
        if width is None:
            self.register_buffer("top", torch.zeros(0), persistent=False)
        else:
            self.top = nn.Parameter(0.1 * torch.randn(width))  # from zeros, what reads it would start without a gradient

    def program(self, batch: Batch | None = None) -> Program:
        """z1, z2, ... from the top, then x."""
        x = data_of(batch)
        seen: Views | None = None if x is None else self.encoder(x)
        state: Tensor = self.top
        for i, step in enumerate(cast(Iterable[Stair], self.steps)):  # a ModuleList forgets the class of its parts
            laws = step.laws(state, seen[i] if isinstance(seen, tuple) else seen)
            z = yield Site(f"z{i + 1}", laws.prior, laws.posterior)
            state = step.after(laws.state, z)
        yield Site("x", self.likelihood(state))
