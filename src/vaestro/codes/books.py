"""Code books: vectors to the nearest code, and how a book follows the vectors that it is shown."""

from abc import abstractmethod

import torch
from torch import Tensor, nn

from vaestro.errors import UsageError
from vaestro.families.base import precise
from vaestro.seeds import places

AT_ONCE = 1 << 23  # distances that are held at once
LOOK = 20_000  # vectors that k-means looks at, at most
MEMORY = 0.99  # decay of the count that says whether a code is dead, where the book has none of its own


def nearest(points: Tensor, codes: Tensor) -> Tensor:
    """argmin_k |x - e_k|^2 of each of `points` [m, D] among `codes` [K, D]: whole numbers [m].

    By |e|^2 - 2 x . e about the mean of the codes and in float64, for these terms nearly cancel; in pieces, so memory is flat in m.
    """
    origin = precise(codes).mean(0)
    e = precise(codes) - origin
    half = e.square().sum(1) / 2
    pieces = (points,) if torch.compiler.is_compiling() else points.split(max(1, AT_ONCE // len(codes)))  # a traced program has no number of rows
    return torch.cat([torch.addmm(half, precise(x) - origin, e.T, alpha=-1).argmin(1) for x in pieces])


def kmeans(points: Tensor, k: int, rounds: int = 10) -> Tensor:
    """`k` centres [k, D] of `points` [m, D] by Lloyd's rounds from random rows; a centre without points moves to the point that is worst served.

    Where there are fewer rows than centres, some centres are alike. Random numbers are torch's global ones.
    """
    order = torch.randperm(max(len(points), k), device=points.device) % len(points)
    centres = points[order[:k]]
    points = points[order[: max(LOOK, k)]]
    for _ in range(rounds):
        index = nearest(points, centres)
        counts, sums = gather(points, index, k)
        far = (points - centres[index]).square().sum(1).argsort(descending=True)
        spare = points[far[((counts == 0).cumsum(0) - 1).clamp(min=0) % len(points)]]
        centres = torch.where(counts[:, None] > 0, sums / counts[:, None].clamp(min=1), spare)
    return centres


def gather(points: Tensor, index: Tensor, k: int, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """How many of `points` [m, D] chose each code, [k], and their sums, [k, D]; each counted `weight` [m] times if that is given."""
    weight = points.new_ones(len(points)) if weight is None else weight
    counts = points.new_zeros(k).index_add_(0, index, weight)
    return counts, points.new_zeros(k, points.shape[1]).index_add_(0, index, points * weight[:, None])


class Book(nn.Module):
    """K vectors of D numbers; `usage` [K] is a running count of the vectors that chose each in a step.

    A code that is chosen less than `revive` times as often as the mean of all is dead, and moves to a random vector of the present step
    (Dhariwal et al. 2020, Jukebox, section 3); at 0 none does. Raises UsageError for fewer than two codes, or no numbers.
    """

    codes: Tensor
    usage: Tensor

    def __init__(self, codes: int, dimension: int, revive: float = 0.03) -> None:
        super().__init__()
        if codes < 2 or dimension < 1:
            raise UsageError(f"a code book cannot have {codes} codes of {dimension} numbers; give two codes or more, of one number or more")
        if not 0 <= revive < 1:
            raise UsageError(f"revive is {revive}, and is the share of the mean use below which a code is dead; give a number from 0 up to, but not with, 1")
        self.revive = revive
        self.register_buffer("usage", torch.ones(codes))

    @abstractmethod
    def loss(self, points: Tensor, chosen: Tensor) -> Tensor:
        """What the book itself adds to the loss of each vector [..., D], given the codes that they chose: [...]."""

    @abstractmethod
    def follow(self, counts: Tensor, sums: Tensor) -> None:
        """Move after a step in which `counts` [K] vectors, which add up to `sums` [K, D], chose each code."""

    @abstractmethod
    def place(self, where: Tensor, points: Tensor) -> None:
        """Put the codes at the places `where` [K] is true on `points` [K, D], as if they were used as often as the mean."""

    def nearest(self, points: Tensor) -> Tensor:
        """The nearest code of each vector [..., D]: whole numbers [...]."""
        return nearest(points.detach().reshape(-1, points.shape[-1]), self.codes.detach()).reshape(points.shape[:-1])

    @torch.no_grad()
    def start(self, points: Tensor) -> None:
        """Start from the centres of `points` [m, D] by k-means."""
        self.place(torch.ones_like(self.usage, dtype=torch.bool), kmeans(points.to(self.codes), len(self.codes)))

    @torch.no_grad()
    def observe(self, points: Tensor, index: Tensor) -> None:
        """Follow the vectors [m, D] of a step, which chose the codes `index` [m], then revive the dead. A vector that is not finite does not count."""
        sound = points.isfinite().all(1)
        points = torch.where(sound[:, None], points, 0.0).to(self.codes)
        self.follow(*gather(points, index, len(self.codes), sound.to(points)))
        if self.revive:
            order = places(len(self.codes), len(points), points.device)
            self.place((self.usage < self.revive * self.usage.mean()) & sound[order], points[order])


class TrainedBook(Book):
    """A code book that follows the gradient of |sg(h) - e|^2 (van den Oord et al. 2017, eq. 3, second term)."""

    def __init__(self, codes: int, dimension: int, revive: float = 0.03) -> None:
        super().__init__(codes, dimension, revive)
        self.codes = nn.Parameter(torch.randn(codes, dimension))

    def loss(self, points: Tensor, chosen: Tensor) -> Tensor:
        """|sg(h) - e|^2, in squared units."""
        return (points.detach() - chosen).square().sum(-1)

    def follow(self, counts: Tensor, sums: Tensor) -> None:
        """Count only: the optimiser moves the codes."""
        self.usage.lerp_(counts.to(self.usage), 1 - MEMORY)

    def place(self, where: Tensor, points: Tensor) -> None:
        """Put the codes there."""
        self.codes.copy_(torch.where(where[:, None], points, self.codes))
        self.usage.copy_(torch.where(where, self.usage.mean(), self.usage))


class AveragedBook(Book):
    """A code book of running means, e_k = m_k / N_k with N_k <- decay N_k + (1 - decay) n_k and m_k <- decay m_k + (1 - decay) sum h.

    van den Oord et al. 2017, appendix A.1, eq. 6 to 8. N starts at 1 and m at e, so the first step moves a code as any other; one that is not chosen stays.
    Raises UsageError for a decay outside (0, 1).
    """

    sums: Tensor

    def __init__(self, codes: int, dimension: int, decay: float = 0.99, revive: float = 0.03) -> None:
        super().__init__(codes, dimension, revive)
        if not 0 < decay < 1:
            raise UsageError(f"a code book cannot forget by {decay} a step; give a decay between 0 and 1")
        self.decay = decay
        self.register_buffer("codes", torch.randn(codes, dimension))
        self.register_buffer("sums", self.codes.clone())

    def loss(self, points: Tensor, chosen: Tensor) -> Tensor:
        """Nothing: no gradient moves it."""
        return points.new_zeros(points.shape[:-1])

    def follow(self, counts: Tensor, sums: Tensor) -> None:
        """The running means."""
        self.usage.lerp_(counts.to(self.usage), 1 - self.decay)
        self.sums.lerp_(sums, 1 - self.decay)
        chosen = (counts > 0)[:, None]  # the others have both fade alike, until they leave the range of the numbers
        self.codes.copy_(torch.where(chosen, self.sums / self.usage.clamp(min=1e-30)[:, None], self.codes))

    def place(self, where: Tensor, points: Tensor) -> None:
        """Put the codes there, and let their means start from there."""
        use = self.usage.mean()
        self.codes.copy_(torch.where(where[:, None], points, self.codes))
        self.usage.copy_(torch.where(where, use, self.usage))
        self.sums.copy_(torch.where(where[:, None], points * use, self.sums))
