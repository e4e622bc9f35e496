"""Mixtures of logistics over colours: masses of all pixels sum to one, samples fit them, and channels lean on each other."""

import math
from itertools import product

import pytest
import torch
from torch import Tensor

from vaestro.core import centre
from vaestro.errors import UsageError
from vaestro.families import LogisticMixture
from vaestro.families.base import outputs
from vaestro.families.binned import Binned
from vaestro.families.colour import ColourMixture


def every(channels: int, levels: int) -> Tensor:
    """All pixels, [levels^C, C, 1, 1]."""
    return torch.tensor(list(product(range(levels), repeat=channels)), dtype=torch.float64).reshape(-1, channels, 1, 1) / (levels - 1)


def wild(channels: int, levels: int, components: int, lead: tuple[int, ...] = (), size: tuple[int, int] = (1, 1)):
    family = ColourMixture(channels, levels, components)
    return family(torch.randn(*lead, *outputs(family, (channels, *size)), dtype=torch.float64) * 1.5)


@pytest.mark.parametrize(("channels", "levels", "components"), [(1, 7, 3), (2, 5, 1), (3, 4, 2), (3, 6, 5), (4, 3, 2)])
def test_masses_of_all_pixels_sum_to_one_and_samples_and_means_fit_them(channels: int, levels: int, components: int) -> None:
    torch.manual_seed(channels)
    dist, x, n = wild(channels, levels, components), every(channels, levels), 20_000
    mass = dist.log_prob(x).exp()
    assert mass.sum().item() == pytest.approx(1, abs=1e-9)
    weights = levels ** torch.arange(channels).flip(0)
    number = (torch.round(dist.sample((n,)) * (levels - 1)).flatten(1).long() * weights).sum(-1)
    found, due = torch.bincount(number, minlength=len(x)).double(), n * mass
    often = due > 5
    chi, free = ((found - due)[often].square() / due[often]).sum().item(), int(often.sum()) - 1
    assert chi < free + 5 * math.sqrt(2 * free) + 25
    exact = (mass[:, None, None, None] * x).sum(0)
    drawn = dist.expand((4000,)).mean
    assert ((drawn.mean(0) - exact).abs() <= 5 * drawn.std(0) / math.sqrt(4000) + 1e-9).all()


def test_the_mass_is_that_of_the_formula() -> None:
    """Three channels and two components, written out by sigmoids (Salimans et al. 2017, eq. 2 and 3)."""
    torch.manual_seed(0)
    levels, dist = 256, wild(3, 256, 2)
    x = torch.tensor([0, 131, 255], dtype=torch.float64).reshape(3, 1, 1) / 255
    w, total = dist.logits.softmax(-1)[0, 0], torch.zeros(2, dtype=torch.float64)
    for k in range(2):
        log_mass = w[k].log()
        for c in range(3):
            m, s = dist.loc[c, 0, 0, k] + sum(dist.lean[c, d, 0, 0, k] * x[d, 0, 0] for d in range(c)), dist.scale[c, 0, 0, k]
            v = x[c, 0, 0]
            top = torch.sigmoid((v + 0.5 / (levels - 1) - m) / s) if v < 1 else torch.tensor(1.0)
            low = torch.sigmoid((v - 0.5 / (levels - 1) - m) / s) if v > 0 else torch.tensor(0.0)
            log_mass = log_mass + (top - low).log()
        total[k] = log_mass
    assert dist.log_prob(x).item() == pytest.approx(torch.logsumexp(total, 0).item(), abs=1e-9)
    assert dist.lean[0].abs().max() == 0 and dist.lean[1, 1:].abs().max() == 0 and dist.lean[2, :2].abs().min() > 0


def test_with_one_channel_it_is_the_mixture_of_logistics() -> None:
    torch.manual_seed(1)
    h, x = torch.randn(6, 15, 2, 3, dtype=torch.float64), torch.randint(256, (6, 1, 2, 3)) / 255
    plain = Binned(LogisticMixture(5, 3), 256)(h)
    mine = ColourMixture(1, 256)(h)
    assert torch.allclose(mine.log_prob(x), plain.log_prob(x), atol=1e-9) and torch.allclose(mine.mean, plain.mean, atol=1e-9)


@pytest.mark.parametrize("lead", [(), (1,), (4,), (2, 3)])
def test_shapes_gradients_and_precision(lead: tuple[int, ...]) -> None:
    family = ColourMixture(3, 256)
    h = torch.randn(*lead, family.params, 4, 5, requires_grad=True)
    dist = family(h)
    x = dist.sample((2,))
    assert x.shape == (2, *lead, 3, 4, 5) and dist.log_prob(x).shape == (2, *lead) and centre(dist).shape == dist.mean.shape == (*lead, 3, 4, 5)
    assert torch.allclose(dist.expand((7, *lead)).log_prob(x[0]), dist.log_prob(x[0]).expand(7, *lead), atol=1e-3)
    for size in (1.0, 1e2, 1e4):
        (gradient,) = torch.autograd.grad(family(h * size).log_prob(x).sum(), h)
        assert gradient.isfinite().all() and (gradient.abs().sum((-2, -1)) > 0).any()
    assert family(h.bfloat16()).log_prob(x).dtype == torch.float32


@pytest.mark.parametrize(
    "make",
    [
        lambda: ColourMixture(3, 1),
        lambda: ColourMixture(3, 4, 0),
        lambda: ColourMixture(0, 4),
        lambda: ColourMixture(3, 4)(torch.zeros(9, 2, 2)),
        lambda: outputs(ColourMixture(3, 4), (1, 4, 4)),
    ],
)
def test_what_is_no_mixture_of_colours_is_refused(make) -> None:
    with pytest.raises(UsageError):
        make()
