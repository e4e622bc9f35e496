"""Metrics of sets of features against torchmetrics, prdc, scikit-learn, eigenvalues and closed forms; each is caught where it should be."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import Tensor, nn

from vaestro.data.schema import Binary, Field, Schema
from vaestro.errors import UsageError, VaestroError
from vaestro.evaluation.metrics import METRICS, Moments, copied, copy_ratio, frechet, kernel, kernel_of_subsets, moments, recognised, two_sample, vendi
from vaestro.evaluation.metrics.base import measure
from vaestro.evaluation.metrics.histograms import caught, imbalance, total_variation
from vaestro.evaluation.metrics.memorisation import nearest, recognised_error
from vaestro.evaluation.metrics.sets import resampled
from vaestro.evaluation.metrics.subject import Pair, Subject
from vaestro.evaluation.metrics.two_sample import logistic, nearest_vote
from vaestro.evaluation.metrics.values import energy_of
from vaestro.recipes import parse


def cloud(n: int, d: int, seed: int, shift: float = 0.0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=g, dtype=torch.float64) @ torch.randn(d, d, generator=torch.Generator().manual_seed(7), dtype=torch.float64) + shift


class Flat(nn.Module):
    """torchmetrics wants a network: this one gives the numbers of a picture."""

    num_features = 12

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1).double()


@pytest.mark.filterwarnings("ignore")
def test_frechet_and_kernel_agree_with_torchmetrics_on_the_same_features() -> None:
    fid = (
        pytest.importorskip("torchmetrics.image.fid")
        .FrechetInceptionDistance(feature=Flat(), normalize=True, input_img_size=(3, 2, 2))
        .set_dtype(torch.float64)
    )
    kid = pytest.importorskip("torchmetrics.image.kid").KernelInceptionDistance(feature=Flat(), subsets=3, subset_size=60, normalize=True)
    g = torch.Generator().manual_seed(0)
    real, fake = (torch.rand(60, 3, 2, 2, generator=g, dtype=torch.float64) ** p for p in (1, 2))
    for metric in (fid, kid):
        metric.update(real, real=True)
        metric.update(fake, real=False)
    a, b = real.flatten(1), fake.flatten(1)
    assert frechet(a, b) == pytest.approx(float(fid.compute()), rel=1e-5)
    assert kernel(a, b) == pytest.approx(float(kid.compute()[0]), rel=1e-5), "a subset of all rows is the whole"
    assert kernel_of_subsets(a, b, 3, 60).mean == pytest.approx(kernel(a, b)) and kernel_of_subsets(a, b, 3, 60).deviation < 1e-12


def test_subsets_estimate_what_all_pairs_do() -> None:
    a, b = cloud(400, 4, 0), cloud(400, 4, 1, 0.5)
    found = kernel_of_subsets(a, b, 100, 100)
    assert found.mean == pytest.approx(kernel(a, b), abs=5 * found.deviation / 10)
    assert found == kernel_of_subsets(a, b, 100, 100) != kernel_of_subsets(a, b, 100, 100, seed=1)
    with pytest.raises(UsageError, match="subsets of 401 rows cannot be drawn from 400 and 400"):
        kernel_of_subsets(a, b, 3, 401)


def test_moments_of_batches_are_those_of_all_rows() -> None:
    x = 1000 + cloud(2503, 5, 0)
    found = Moments()
    for part in x.split(177):
        found.add(part)
    _, cov = moments(x)
    assert found.rows == 2503
    np.testing.assert_allclose(found.mean, x.mean(0), rtol=1e-13)
    np.testing.assert_allclose(found.covariance, np.cov(x.T), rtol=1e-9)
    np.testing.assert_allclose(found.covariance, cov, rtol=1e-9)
    assert Moments().add(x[:0]).add(x).rows == 2503
    with pytest.raises(UsageError, match="features of 4 numbers do not go with those of 5"):
        found.add(x[:, :4])
    with pytest.raises(VaestroError, match="not finite"):
        Moments().add(torch.tensor([[1.0, math.nan]]))


def test_vendi_by_the_eigenvalues_of_all_similarities() -> None:
    x = cloud(30, 50, 0)
    unit = x / x.norm(dim=1, keepdim=True)
    eigen = np.linalg.eigvalsh((unit @ unit.T).numpy() / 30).clip(1e-300)
    expected = math.exp(-(eigen * np.log(eigen)).sum())
    assert vendi(x) == pytest.approx(expected, rel=1e-9)
    assert vendi(x.float()) == pytest.approx(expected, rel=1e-5)


def test_vendi_counts_kinds_of_rows() -> None:
    assert vendi(torch.ones(40, 3)) == pytest.approx(1)
    assert vendi(torch.eye(7).repeat(5, 1)) == pytest.approx(7), "copies add nothing"
    assert vendi(torch.eye(7) * torch.tensor([1e-30] + 6 * [1e30])[:, None]) == pytest.approx(7), "only angles count"
    assert vendi(torch.zeros(9, 4)) == pytest.approx(1)
    assert vendi(torch.tensor([[0.0, 0.0], [1.0, 0.0]])) == pytest.approx(2)
    shares = torch.tensor([0.5, 0.25, 0.25])
    assert vendi(torch.eye(3).repeat_interleave(torch.tensor([20, 10, 10]), 0)) == pytest.approx(math.exp(-float((shares * shares.log()).sum())))
    assert vendi(torch.randn(1, 5)) == pytest.approx(1)
    with pytest.raises(UsageError, match="at least 1 row"):
        vendi(torch.zeros(0, 3))
    with pytest.raises(VaestroError, match="not finite"):
        vendi(torch.full((3, 2), torch.inf))


def test_nearest_vote_is_that_of_scikit_learn() -> None:
    neighbours = pytest.importorskip("sklearn.neighbors")
    rows, asked = cloud(150, 3, 0), cloud(90, 3, 1)
    fake = torch.rand(150, generator=torch.Generator().manual_seed(0)) < 0.4
    expected = neighbours.KNeighborsClassifier(13).fit(rows, fake).predict(asked)
    assert (nearest_vote(rows, fake, asked).numpy() == expected).all()


def test_logistic_is_that_of_scikit_learn() -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    rows, asked = cloud(200, 4, 0), cloud(300, 4, 1)
    fake = rows[:, 0] + 2 * torch.randn(200, generator=torch.Generator().manual_seed(0)) > 0.5
    scaled = [(x - rows.mean(0)) / rows.std(0) for x in (rows, asked)]
    expected = linear.LogisticRegression(tol=1e-10, max_iter=1000).fit(scaled[0], fake).predict(scaled[1])
    assert (logistic(rows, fake, asked).numpy() == expected).all()
    assert bool(logistic(torch.zeros(4, 2).double(), torch.arange(4) > 1, torch.zeros(1, 2).double()).isfinite().all()), "constant columns are borne"


@pytest.mark.parametrize("classifier", [nearest_vote, logistic])
def test_two_samples_of_one_law_are_told_apart_by_chance_only(classifier) -> None:
    found = np.array([two_sample(cloud(60, 3, 2 * s), cloud(60, 3, 2 * s + 1), classifier, s).mean() for s in range(100)])
    assert found.mean() == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(60 * 100))
    assert found.std() == pytest.approx(0.5 / math.sqrt(60), rel=0.3), "the binomial error is the spread over repetitions"


def test_the_best_accuracy_is_that_of_bayes() -> None:
    g = torch.Generator().manual_seed(0)
    real, fake = torch.randn(4000, 1, generator=g), 1 + torch.randn(4000, 1, generator=g)
    right = two_sample(real, fake, logistic)
    assert len(right) == 4000 and right.mean() == pytest.approx(norm.cdf(0.5), abs=4 * right.std() / math.sqrt(4000))
    assert two_sample(real, fake + 100).mean() == 1
    assert len(two_sample(real[:9], fake[:50])) == 8, "both sides are cut to the smaller"
    with pytest.raises(UsageError, match="at least 4 rows a side, and there are 3"):
        two_sample(real[:3], fake)
    with pytest.raises(VaestroError, match="not finite"):
        two_sample(real / 0, fake)


def test_histograms_in_closed_form() -> None:
    real, fake = np.repeat(np.arange(4), 25), np.repeat([0, 1, -1], [50, 30, 20])
    assert total_variation(real, fake, 4) == pytest.approx((0.25 + 0.05 + 0.25 + 0.25 + 0.2) / 2)
    assert total_variation(real, real[:1], 4) == pytest.approx(0.75) and total_variation(real, real, 4) == 0
    assert imbalance(real, 4) == pytest.approx(0) and imbalance(np.zeros(9, int), 4) == pytest.approx(math.log(4))
    p = np.array([5, 3]) / 8
    assert imbalance(fake, 4) == pytest.approx(float((p * np.log(p * 4)).sum()))
    assert math.isnan(imbalance(np.array([-1, -1]), 4))
    assert (caught(fake), caught(real), caught(np.array([-1]))) == (2, 4, 0)


def test_nearest_by_brute_force_over_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vaestro.evaluation.metrics.memorisation.AT_ONCE", 100)
    a, b = 1e3 + cloud(57, 4, 0), 1e3 + cloud(33, 4, 1)
    np.testing.assert_allclose(nearest(a, b), torch.cdist(a, b).square().min(1).values, rtol=1e-6)
    assert float(nearest(a, torch.cat([b, a])).max()) < 1e-6
    with pytest.raises(UsageError, match="empty set"):
        nearest(a, b[:0])


def copies_of(train: Tensor, held: Tensor, fake: Tensor) -> float:
    return copied(nearest(fake, train), nearest(fake, held), len(train), len(held))


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("blur", [1.0, 0.2])
def test_the_share_of_copies_is_found_however_blurred_the_rest_is(share: float, blur: float) -> None:
    g = torch.Generator().manual_seed(0)
    train, held, fresh = (torch.randn(n, 3, generator=g) for n in (3000, 3000, 4000))
    rows = round(share * 4000)
    fake = torch.cat([train[torch.randint(3000, (rows,), generator=g)] + 1e-4, blur * fresh[rows:]])
    assert copies_of(train, held, fake) == pytest.approx(share, abs=0.05)
    ratio = copy_ratio(nearest(fake, train), nearest(held, train))
    if blur == 1:
        assert ratio == pytest.approx({0.0: 1.0, 0.3: ratio, 1.0: 0.0}[share], abs=0.06)


def test_rows_that_both_sides_have_lie_at_nought_from_either() -> None:
    """Distances are taken about another middle for each side, so rounding would say which of two equal rows is nearer."""
    twice, train, held = 3 + cloud(200, 6, 0), 40 + cloud(300, 6, 1), cloud(100, 6, 2) / 7
    to_train, to_held = nearest(twice, torch.cat([train, twice])), nearest(twice, torch.cat([held, twice.flip(0)]))
    assert not to_train.any() and not to_held.any()
    assert copied(to_train, to_held, 500, 500) == 0
    assert (nearest(twice + 1e-4, torch.cat([train, twice])) > 0).all()


def test_ties_between_training_and_held_out_rows_count_half() -> None:
    x = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    assert copies_of(x, x, x) == 0
    assert math.isnan(copy_ratio(torch.ones(3), torch.zeros(3)))


def test_membership_in_closed_form() -> None:
    rng = np.random.default_rng(0)
    strangers, members = rng.normal(size=20_000), rng.normal(1.0, size=20_000)
    expected = 1 - norm.cdf(norm.ppf(0.99) - 1)
    error = recognised_error(members, strangers)
    assert recognised(members, strangers) == pytest.approx(expected, abs=4 * error) and 0.001 < error < 0.02
    assert recognised(rng.normal(size=20_000), strangers) == pytest.approx(0.01, abs=0.005)
    assert recognised(strangers + 100, strangers) == 1 and recognised(np.zeros(50), np.zeros(100)) == 0, "a tie gives nothing away"
    assert recognised(np.array([97.5, 98.5]), np.arange(100.0)) == 0.5, "of a hundred strangers one may pass"


def test_membership_error_is_the_spread_of_repeated_sets() -> None:
    values, errors = [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        members, strangers = rng.normal(1.0, size=1000), rng.normal(size=1000)
        values.append(recognised(members, strangers))
        errors.append(recognised_error(members, strangers, seed=seed))
    assert np.std(values) / np.sqrt(np.mean(np.square(errors))) == pytest.approx(1, abs=0.4)


def test_names_are_those_of_the_features() -> None:
    assert {"fd_effnetlite0", "fid", "kid", "frechet_judge", "kernel_effnetlite0"} <= set(METRICS) and "frechet_inception" not in METRICS
    assert all(METRICS[n].dear for n in ("fid", "kid", "fd_effnetlite0", "vendi_inception")) and not METRICS["two_sample_judge"].dear


class Broken:
    """Features of which none is a number."""

    name = "broken"

    def features(self, images: Tensor) -> Tensor:
        return torch.full((len(images), 3), torch.nan)


def test_a_measure_that_meets_no_number_leaves_the_others_be() -> None:
    field = Field("x", Binary(), (1, 4, 4))
    model = parse("vae:latents=2,hidden=4").cook(Schema("toy", (field,), {"train": 8, "validation": 8, "test": 8})).model
    x = (torch.rand(8, 1, 4, 4) > 0.5).float()
    report = measure(["frechet_judge", "reconstruction_mse"], Subject(model, lambda: [{"x": x}], field, features={"judge": Broken()}))
    assert "not finite" in report.refused["frechet_judge"] and set(report.scores) == {"reconstruction_mse"}


def test_a_single_row_is_no_set() -> None:
    one = torch.zeros(1, 2)
    with pytest.raises(UsageError, match="there is 1 row a side"):
        resampled(lambda a, b: np.array([energy_of(a, b)]), Pair(one, one), 0)
