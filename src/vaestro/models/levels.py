"""Codes on several levels of a picture: the way up, down through the levels, and back to the picture."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from vaestro.codes import straight_through
from vaestro.codes.levels import LevelQuantiser
from vaestro.conditional import Conditional
from vaestro.core import prepare
from vaestro.data.schema import Field
from vaestro.errors import UsageError
from vaestro.families import outputs
from vaestro.families.likelihoods import Likelihood
from vaestro.models.coded import LOOK, Coded
from vaestro.networks import convolutional
from vaestro.networks.base import Network
from vaestro.networks.convolutional import Size, convolution, down, plain_down, plain_up, sizes
from vaestro.networks.reading import reading
from vaestro.priors.codes import UniformLevels


class CodedLevels(Coded):
    """The same program with codes on several levels, z the string of them all, the top level first (Razavi et al. 2019, VQ-VAE-2).

    A lower level's codes depend on those above through the encoder; given x all are one point, so q(z | x) = 1 and log p(x) >= log p(x | e) + log p(z).
    """


@prepare.register(CodedLevels)
@torch.no_grad()
def _(part: CodedLevels, data: Mapping[str, Tensor]) -> None:
    quantiser = part.quantiser
    assert isinstance(quantiser, LevelQuantiser), "a model of levels has a quantiser of levels"
    for level in range(len(quantiser.levels)):  # what a level is shown depends on the books above it
        quantiser.start_level(level, torch.cat([part.posterior(x).h for x in data["x"].split(LOOK)]))


class Ascend(nn.Module):
    """x [n, C, H, W] to the numbers of every level, flattened side by side, the top one first: [n, numbers].

    `stages` climb, the lowest level first; `heads[l]` reads the map of level l and, but for the top, what the codes above it say, enlarged by `enter[l]`.
    The quantiser is held, not owned.
    """

    event_dims = 3

    def __init__(self, stages: Sequence[nn.Module], enter: Sequence[nn.Module], heads: Sequence[nn.Module], quantiser: LevelQuantiser) -> None:
        super().__init__()
        self.stages, self.enter, self.heads, self._held = nn.ModuleList(stages), nn.ModuleList(enter), nn.ModuleList(heads), (quantiser,)

    def forward(self, x: Tensor) -> Tensor:
        """The vectors that will be quantised."""
        quantiser, seen = self._held[0], []
        for stage in self.stages:
            x = stage(x)
            seen.append(x)
        maps: list[Tensor] = []
        codes: list[Tensor] = []
        for level, (quantise, head) in enumerate(zip(quantiser.each, self.heads, strict=True)):
            own = seen[-1 - level]
            told = [self.enter[level - 1](torch.cat(codes, 1))] if codes else []
            maps.append(head(torch.cat([own, *told], 1)))
            e = straight_through(quantise(maps[-1]).vectors, maps[-1])
            codes = [*told, e]
        return quantiser.join(maps)


class Descend(nn.Module):
    """The numbers [n, numbers] of every level to one map [n, channels, *grid] of the lowest: each level is enlarged and laid beside the next."""

    event_dims = 1

    def __init__(self, enter: Sequence[nn.Module], quantiser: LevelQuantiser, decoder: nn.Module) -> None:
        super().__init__()
        self.enter, self.decoder, self._held = nn.ModuleList(enter), decoder, (quantiser,)

    def forward(self, e: Tensor) -> Tensor:
        """What the likelihood reads."""
        first, *rest = self._held[0].split(e)
        for enter, below in zip(self.enter, rest, strict=True):
            first = torch.cat([enter(first), below], 1)
        out: Tensor = self.decoder(first)
        return out


def grids(field: Field, hidden: tuple[int, ...], levels: int) -> list[Size]:
    """The grids of the levels, the top one first: the picture's size halved once for each width, and half as often for each level below.

    Raises UsageError for rows that are no pictures, and for fewer widths than levels.
    """
    if len(field.shape) != 3:
        raise UsageError(f"levels of codes need images, and the rows of {field.name!r} are shaped {field.shape}; use vq_vae for vectors")
    if len(hidden) < levels:
        raise UsageError(f"{levels} levels of codes need as many halvings, and hidden has {len(hidden)} widths; give hidden={'x'.join(['64'] * levels)}")
    return sizes(field.shape, len(hidden))[::-1][:levels]


def levelled(field: Field, quantiser: LevelQuantiser, hidden: tuple[int, ...], likelihood: Likelihood) -> CodedLevels:
    """The model around a quantiser of levels on `grids`: stages of the widths `hidden`, the last of them one a level but the lowest."""
    places: list[Size] = [(g[0], g[1]) for g in quantiser.grids]
    levels, d, family = len(places), quantiser.dimension, likelihood(field)
    lowest = len(hidden) - levels + 1
    first = Network(down(field.shape, hidden[:lowest], plain_down), field.shape, (hidden[lowest - 1], *places[-1]))
    widths = hidden[lowest - 1 :][::-1]  # of each level's map, the top one first
    stages = [reading(field.kind, first), *(plain_down(i, o, s) for i, o, s in zip(hidden[lowest - 1 :], hidden[lowest:], places[-2::-1], strict=False))]
    told = [d, *(w + d for w in widths[1:])]  # channels that a level says: its codes, and what it was told from above
    up = [plain_up(told[i], widths[i + 1], places[i + 1]) for i in range(levels - 1)]
    heads = [convolution(w + (w if i else 0), d) for i, w in enumerate(widths)]
    encoder = Ascend(stages, up, heads, quantiser)
    back = [plain_up(told[i], widths[i + 1], places[i + 1]) for i in range(levels - 1)]
    decoder = convolutional((told[-1], *places[-1]), outputs(family, field.shape), hidden[:lowest][::-1])
    return CodedLevels(UniformLevels(quantiser.grids, quantiser.codes), Conditional(encoder, quantiser), Conditional(Descend(back, quantiser, decoder), family))
