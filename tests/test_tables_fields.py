"""The distribution of a row of mixed columns against scipy, enumeration and brute force; recipes that train on tables."""

import itertools
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

import vaestro
from vaestro.core import Seen, partial_log_prob
from vaestro.data import from_table
from vaestro.data.prepare.columns import unpack
from vaestro.data.schema import Binary, Count, Counted, Dated, Field, Measured, Named, Ordered, Positive, Schema, Table
from vaestro.errors import UsageError
from vaestro.families import LIKELIHOODS, default_likelihood, outputs
from vaestro.families.columns import Law, normal, student
from vaestro.families.fields import Fields
from vaestro.networks import mlp
from vaestro.networks.reading import reader
from vaestro.plays.denoising import NOISES
from vaestro.recipes import RECIPES, parse
from vaestro.testing.models import check_fit, toy_table
from vaestro.uses.evaluate import Protocol

NAN = math.nan
REAL, GRID = Measured("real", 2.0, 3.0), Measured("grid", 5.0, 2.0, 1.0)
SIZE, PRICE = Positive("size", 1.0, 0.5), Positive("price", 1.0, 0.8, 0.5)
DAY, CLAIMS = Dated("day", 1.7e9, 1e7, 86400.0, "Date"), Counted("claims", 1.0, 1.0)
STARS, SEX, TOWN = Ordered("stars", ("a", "b", "c", "d")), Named("sex", ("F", "M")), Named("town", ("u", "v", "w", "other"), other=True)
TABLE = Table((REAL, SEX, SIZE, CLAIMS, TOWN, GRID, STARS, PRICE, DAY))


def numbers(family: Fields, rows: int = 1, spread: float = 0.5) -> Tensor:
    return torch.randn(rows, family.params, generator=torch.Generator().manual_seed(3), dtype=torch.float64) * spread


def alone(column: object, spread: float = 0.5) -> tuple[Fields, Tensor]:
    family = Fields(Table((column,)))  # type: ignore[arg-type]
    return family, numbers(family, 1, spread)


def scale(s: Tensor) -> float:
    return float(nn.functional.softplus(s + math.log(math.e - 1)) + 1e-4)


def test_densities_are_those_of_the_values_in_their_own_units() -> None:
    family, h = alone(REAL)
    v = np.array([-4.0, 0.5, 7.0])
    exact = stats.norm(2 + 3 * float(h[0, 0]), 3 * scale(h[0, 1])).logpdf(v)
    np.testing.assert_allclose(family(h).log_prob(torch.tensor((v - 2) / 3)[:, None]), exact, rtol=1e-9)
    family, h = alone(SIZE)
    v = np.array([0.2, 3.0, 50.0])
    exact = stats.lognorm(s=0.5 * scale(h[0, 1]), scale=math.exp(1 + 0.5 * float(h[0, 0]))).logpdf(v)
    np.testing.assert_allclose(family(h).log_prob(torch.tensor((np.log(v) - 1) / 0.5)[:, None]), exact, rtol=1e-9)
    heavy = Fields(Table((REAL,)), student)
    exact = stats.t(4, 2 + 3 * float(h[0, 0]), 3 * scale(h[0, 1])).logpdf([-40.0, 1.0])
    np.testing.assert_allclose(heavy(h).log_prob(torch.tensor([[-14.0], [-1 / 3]], dtype=torch.float64)), exact, rtol=1e-9)


def test_steps_have_masses() -> None:
    family, h = alone(GRID)
    v = np.arange(-30, 41)
    law = stats.norm(5 + 2 * float(h[0, 0]), 2 * scale(h[0, 1]))
    found = family(h).log_prob(torch.tensor((v - 5) / 2)[:, None]).exp().numpy()
    np.testing.assert_allclose(found, law.cdf(v + 0.5) - law.cdf(v - 0.5), atol=1e-12)
    assert found.sum() == pytest.approx(1, abs=1e-9)
    family, h = alone(PRICE)
    v = 0.5 * np.arange(1, 4000)
    found = family(h).log_prob(torch.tensor((np.log(v) - 1) / 0.8)[:, None]).exp().numpy()
    law = stats.lognorm(s=0.8 * scale(h[0, 1]), scale=math.exp(1 + 0.8 * float(h[0, 0])))
    np.testing.assert_allclose(found[1:], law.cdf(v[1:] + 0.25) - law.cdf(v[1:] - 0.25), atol=1e-10)
    assert found.sum() == pytest.approx(1, abs=1e-5) and found[0] == pytest.approx(law.cdf(0.75))
    family, h = alone(DAY)
    sharp = torch.tensor([[0.0, -20.0]])  # a scale of 1e-4: a density would be 40 times the mass
    assert float(family(sharp).log_prob(torch.zeros(1, 1))) <= 0


@pytest.mark.parametrize("law", [normal, student])
@pytest.mark.parametrize("v", [0.01, 3.7, 1e6, 1e12, 1e15, 1e30])
def test_steps_far_below_their_value_have_masses_too(law: Law, v: float) -> None:
    """A cent beside a sum of a million millions: v + step / 2 is v, and the mass of a step is its density times its width."""
    column = Positive("sum", 25.0, 4.0, step=0.01)
    h = torch.tensor([[0.3, 0.2]], dtype=torch.float64, requires_grad=True)
    y = torch.tensor([[(math.log(v) - 25) / 4]], dtype=torch.float64)
    found = Fields(Table((column,)), law)(h).log_prob(y)
    loc, s = 0.3, scale(h[0, 1].detach())
    exact = stats.norm(loc, s) if law is normal else stats.t(4, loc, s)
    density = exact.logpdf(float(y)) + math.log(0.01 / v / 4)
    narrow = math.log(exact.cdf(float((math.log(0.015) - 25) / 4))) if v == 0.01 else density
    assert float(found.detach()) == pytest.approx(narrow, rel=1e-6)
    (grad,) = torch.autograd.grad(found.sum(), h)
    assert bool(grad.isfinite().all())
    far = Fields(Table((column, replace(GRID, step=1e-12))), law)(torch.zeros(1, 4, requires_grad=True)).log_prob(torch.tensor([[1e3, 1e4]]))
    assert bool(far.isfinite().all())


@pytest.mark.parametrize("top", [0.0, 1.0, 5.0, 99_999.0, 2.0**24])
def test_counts_have_means_and_draws_below_the_largest_of_training(top: float) -> None:
    family = Fields(Table((Counted("gain", 0.7, 2.4, top=top),)))
    h = torch.tensor([[g, r] for g in (-60.0, 0.0, 9.0, 40.0, 1e6) for r in (-60.0, -4.0, 0.0, 20.0)], requires_grad=True)
    dist = family(h)
    assert bool((dist.mean <= max(top, 1.0)).all()) and bool((dist.mean >= 0).all())
    torch.manual_seed(0)
    draws = dist.sample(torch.Size([500]))
    assert bool((draws <= max(top, 1.0)).all()) and bool((draws >= 0).all())
    x = torch.tensor([[0.0], [1.0], [10 * top]])
    scored = dist.log_prob(x[:, None])
    assert bool(scored.isfinite().all()) and bool((scored <= 1e-5).all()), "rows above all that was seen still have a mass"
    (grad,) = torch.autograd.grad(scored.sum(), h)
    assert bool(grad.isfinite().all())


def test_counts_of_data_without_a_top_are_as_they_were() -> None:
    both = Fields(Table((CLAIMS, replace(CLAIMS, top=3.0))))
    h = torch.tensor([[40.0, 40.0, 1.0, 1.0]])
    assert float(both(h).mean[0, 0]) > 1e7 and float(both(h).mean[0, 1]) <= 3
    schema = Schema("s", (Field("x", Table((CLAIMS,)), (1,)),))
    assert "top" not in json.dumps(schema.to_json()) and Schema.from_json(schema.to_json()) == schema
    topped = Schema("s", (Field("x", Table((replace(CLAIMS, top=3.0),)), (1,)),))
    assert Schema.from_json(json.loads(json.dumps(topped.to_json()))) == topped


def test_the_largest_count_is_that_of_training_rows_alone() -> None:
    import polars as pl

    data = from_table(pl.DataFrame({"n": [0, 1, 2, 9, 4, 5, 1, 0]}), {"n": "count"}, test=pl.DataFrame({"n": [50, 60]}))
    (column,) = data.schema["x"].kind.columns
    assert column.top == float(np.nanmax(data.split("train").arrays["x"])) < 50


def test_counts_levels_and_categories_have_masses() -> None:
    family, h = alone(CLAIMS)
    m, r = math.exp(float(h[0, 0]) + 1), math.exp(float(h[0, 1]))
    k = np.arange(300)
    np.testing.assert_allclose(family(h).log_prob(torch.tensor(k, dtype=torch.float64)[:, None]), stats.nbinom(r, r / (r + m)).logpmf(k), rtol=1e-7)
    top = 7.0
    family, h = alone(replace(CLAIMS, top=top))
    bounded = m * top / (m + top)  # ln top - softplus(ln top - ln m)
    np.testing.assert_allclose(
        family(h).log_prob(torch.tensor(k, dtype=torch.float64)[:, None]), stats.nbinom(r, r / (r + bounded)).logpmf(k), rtol=1e-6, atol=1e-9
    )
    family, h = alone(STARS)
    law = stats.logistic(float(h[0, 0]), scale(h[0, 1]))
    ends = np.array([-np.inf, *(3 * ((j - 0.5) / 3 - 0.5) for j in (1, 2, 3)), np.inf])
    np.testing.assert_allclose(family(h).log_prob(torch.arange(4.0, dtype=torch.float64)[:, None]).exp(), np.diff(law.cdf(ends)), rtol=1e-9)
    family = Fields(Table((SEX, TOWN)))
    h = numbers(family)
    every = torch.tensor(list(itertools.product(range(2), range(4))), dtype=torch.float64)
    found = family(h).log_prob(every).exp().view(2, 4)
    np.testing.assert_allclose(found, torch.outer(h[0, :2].softmax(0), h[0, 2:].softmax(0)), rtol=1e-12)


def test_what_was_not_seen_is_integrated_out() -> None:
    """Over all values of the unseen columns the masses add up to what the seen ones score alone, for each subset of four columns."""
    table = Table((SEX, GRID, TOWN, STARS))
    family = Fields(table)
    dist = family(numbers(family))
    values = (torch.arange(2.0), (torch.arange(-60.0, 71.0) - 5) / 2, torch.arange(4.0), torch.arange(4.0))
    row = torch.tensor([[1.0, 0.5, 2.0, 3.0]], dtype=torch.float64)
    for seen in itertools.product([True, False], repeat=4):
        mask = torch.tensor([seen])
        every = [v if not s else row[0, i : i + 1] for i, (s, v) in enumerate(zip(seen, values, strict=True))]
        total = torch.logsumexp(dist.log_prob(torch.cartesian_prod(*(v.double() for v in every)).view(-1, 4)), 0)
        assert float(dist.log_prob(row.masked_fill(~mask, NAN))) == pytest.approx(float(total), abs=1e-6)
        assert float(partial_log_prob(dist, row.masked_fill(~mask, 1e30), mask)) == pytest.approx(float(total), abs=1e-6)


@pytest.mark.parametrize("spread", [0.5, 30.0, 3000.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_and_gradients_are_finite(spread: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    family = Fields(TABLE)
    x = toy_table(TABLE, 50).to(dtype)
    x[:, 8] = x[:, 8] * 0.1
    x[0], x[1, 0], x[2, 2] = NAN, 1e6, 200.0
    h = numbers(family, 50, spread).to(dtype).requires_grad_()
    log_p = family(h).log_prob(x)
    log_p.sum().backward()
    assert log_p.dtype == dtype and h.grad is not None and h.grad.isfinite().all() and not log_p.isnan().any() and log_p[0] == 0
    assert family(h).sample((2,)).isfinite().all()


def test_samples_fit_the_masses() -> None:
    torch.manual_seed(1)
    family = Fields(TABLE)
    h = numbers(family).float()
    dist, n = family(h[0]), 40_000
    rows = dist.sample((n,))
    table = {c.name: unpack(c, rows[:, i].double().numpy()) for i, c in enumerate(TABLE.columns)}
    assert table["price"].min() >= 0.5 and set(table["sex"]) == {"F", "M"}  # type: ignore[operator]
    for i in (1, 3, 4, 5, 6):  # the counted ones by chi-square
        values, found = rows[:, i].unique(return_counts=True)
        one = torch.full((len(values), len(TABLE.columns)), NAN)
        one[:, i] = values
        due = dist.log_prob(one).exp() * n
        full = due > 5
        chi, free = float(((found - due)[full] ** 2 / due[full]).sum()), int(full.sum()) - 1
        assert chi < free + 5 * math.sqrt(2 * free) + 25, TABLE.columns[i].name
    for i in (0, 2):  # the others by the uniformity of their distribution function
        group = next(g for g in family.groups if i in g.at.tolist())
        loc, s = h[0].split(family.sizes)[list(family.groups).index(group)].chunk(2)
        place = group.at.tolist().index(i)
        law = stats.norm(float(loc[place]), scale(s[place]))
        assert stats.kstest(rows[:, i].numpy(), law.cdf).pvalue > 1e-4


def test_leading_axes_and_expand() -> None:
    family = Fields(TABLE)
    h, x = numbers(family, 6).view(2, 3, -1), toy_table(TABLE, 3).double()
    dist = family(h)
    assert dist.batch_shape == (2, 3) and dist.event_shape == (9,) and dist.mean.shape == (2, 3, 9) and dist.sample((4,)).shape == (4, 2, 3, 9)
    apart = torch.stack([torch.stack([family(h[i, j]).log_prob(x[j]) for j in range(3)]) for i in range(2)])
    torch.testing.assert_close(dist.log_prob(x), apart)
    torch.testing.assert_close(family(h[0]).expand((5, 3)).log_prob(x), apart[0].expand(5, 3))
    torch.testing.assert_close(dist.log_prob_by_column(x).sum(-1), apart)
    assert outputs(family, (9,)) == (family.params,)


def test_likelihoods_of_tables() -> None:
    field = Field("x", TABLE, (9,))
    assert isinstance(default_likelihood(field), Fields)
    for name in ("gaussian", "bernoulli", "poisson"):
        with pytest.raises(UsageError, match="those that fit it: fields, fields_student"):
            LIKELIHOODS[name](field)
    with pytest.raises(UsageError, match="each by its own kind"):
        LIKELIHOODS["fields"](Field("x", Binary(), (4,)))
    with pytest.raises(UsageError, match="whose columns have no dimension in common"):
        field.bits_per_dim(3.0)


def test_the_reader_never_reads_what_was_not_seen() -> None:
    torch.manual_seed(0)
    many = Named("many", tuple(map(str, range(100))))
    field = Field("x", Table((*TABLE.columns, many)), (10,))
    net = reader(field, mlp, (3,), (8,))
    x = torch.cat([toy_table(TABLE, 20), torch.arange(20.0)[:, None]], 1)
    out = net(x)
    assert out.isfinite().all()
    out.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    for i in range(10):  # every column is read, and so is whether it was seen
        other = x.nan_to_num(0.5)
        hidden = other.clone()
        hidden[:, i] = NAN
        assert (net(other) != net(hidden)).all(1).all()
        moved = other.clone()
        moved[:, i] = moved[:, i] + 1
        assert (net(other) != net(moved)).any()
    assert net(torch.full((1, 10), NAN)).isfinite().all() and net(torch.full((1, 10), 1e20)).isfinite().all()


TOY = Table((REAL, PRICE, CLAIMS, STARS, TOWN, GRID))
FEW = {"m2": "m2:labels=4", "m1_m2": "m1_m2:labels=4"}
MAPS = ("resnet_vae", "resnet_vae_iaf", "nvae", "vdvae", "vq_vae_2")  # of pictures
FAST = ("vae", "iwae", "vamp", "exemplar", "flow_prior", "ladder_vae", "vq_vae", "cvae", "m2", "denoising_vae", "iaf", "semi_amortised")
SLOW = sorted(n for n, e in RECIPES.items() if Table in e.fits and n not in FAST)


@pytest.mark.parametrize("name", [*FAST, *(pytest.param(n, marks=pytest.mark.slow) for n in SLOW)])
def test_recipes_train_on_tables_with_gaps(name: str) -> None:
    torch.manual_seed(0)
    if name in MAPS:
        with pytest.raises(UsageError, match="needs? images"):
            check_fit(parse(name), TOY, (6,))
        return
    check_fit(parse(FEW.get(name, name)), TOY, (6,))


def test_recipes_of_numbers_refuse_tables() -> None:
    data = from_table({"a": np.random.default_rng(0).normal(size=50), "b": ["u", "v"] * 25})
    with pytest.raises(UsageError, match="holds Table values"):
        parse("sigma_vae").cook(data.schema)
    hidden = NOISES["masking"](data.schema["x"], 0.5)(torch.zeros(1000, 2)).isnan().float().mean()
    assert 0.4 < float(hidden) < 0.6
    with pytest.raises(UsageError, match="no meaning for the categories"):
        NOISES["gaussian"](data.schema["x"], 0.5)
    assert Count in RECIPES["vae"].fits


def test_training_on_gaps_is_exact(tmp_path: object) -> None:
    """A model's nats of rows with gaps are those of the marginal: on discrete columns, the enumerated sum over the unseen ones."""
    rng = np.random.default_rng(0)
    table = {"a": rng.choice(["p", "q"], 300), "b": rng.choice(["r", "s", "t"], 300), "c": rng.choice(["u", "v"], 300)}
    run = vaestro.train("vae:latents=1,hidden=8", from_table(table), steps=30, out=f"{tmp_path}/run")
    z = torch.linspace(-8, 8, 2001)[:, None]
    weight = torch.distributions.Normal(0, 1).log_prob(z[:, 0]) + math.log(16 / 2000)
    with torch.no_grad():
        dist = run.model.likelihood(z)  # type: ignore[operator]
    every = torch.tensor(list(itertools.product(range(2), range(3), range(2)))).float()
    whole = torch.logsumexp(torch.stack([dist.log_prob(row) for row in every], 1) + weight[:, None], 0).view(2, 3, 2)
    gaps = torch.logsumexp(dist.log_prob(torch.tensor([1.0, NAN, 0.0])) + weight, 0)
    torch.testing.assert_close(gaps, whole[1, :, 0].logsumexp(0), atol=1e-4, rtol=0)
    row = torch.tensor([[1.0, NAN, 0.0]])
    with torch.no_grad():
        log_w = run.model({"x": row}, 20_000).log_w
        seen = run.model({"x": Seen(row.nan_to_num(7.0), ~row.isnan())}, 20_000).log_w
    assert float(torch.logsumexp(log_w, 0) - math.log(20_000)) == pytest.approx(float(gaps), abs=0.03)
    assert float(torch.logsumexp(seen, 0) - math.log(20_000)) == pytest.approx(float(gaps), abs=0.03)


def test_a_model_learns_what_goes_with_what(tmp_path: object) -> None:
    """Two columns that are one and the same, with gaps: the nats of a whole row come near those of one column."""
    rng = np.random.default_rng(1)
    side = rng.choice(["left", "right"], 1500)
    other = np.where(rng.random(1500) < 0.3, None, side)
    run = vaestro.train("vae:latents=2,hidden=32,learning_rate=0.01", from_table({"a": side, "b": other.tolist()}), steps=250, out=f"{tmp_path}/run")
    found = vaestro.evaluate(run, Protocol(rows=150, samples=50))
    assert found.scores["nll"]["value"] < 0.85  # ln 2 = 0.69, and 1.18 for independent columns
