"""Cheats lose visibly: each in the column that is meant to catch it, in a real arena on small digits, beside honest entrants that pass."""

import math
import re
from pathlib import Path

import pytest
import torch
from torch.distributions import Bernoulli, Independent, Laplace, MultivariateNormal, Normal, StudentT

from vaestro.arena import load_challenge
from vaestro.arena.entry import Entrant, own_entrant
from vaestro.arena.folder import Arena, start
from vaestro.arena.worker import do
from vaestro.codes.onehot import Hard
from vaestro.data import load
from vaestro.errors import UsageError
from vaestro.evaluation.mass import apart, summed, weighed
from vaestro.families import Binned, Gaussian, Logistic
from vaestro.recipes import RECIPES, parse

CHEATS = ("copycat", "collapsed", "blurry", "overclaimer", "loud", "peeker")
HONEST = ("vae:latents=16,hidden=64", "mixture:components=20", "kernel_density", "png")
COLUMNS = ("nll", "audit", "split_gap", "copied_pca64", "coverage_pca64", "recall_pca64", "frechet_pca64", "blur", "elbo", "reconstruction_mse")
FILE = Path(__file__).parent / "my_cheats.py"


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    """The results of every entrant in one small arena, by the name of the recipe."""
    before = dict(RECIPES._parts)
    folder = tmp_path_factory.mktemp("cheats")
    shipped = load_challenge("digits")
    text = shipped.file.read_text(encoding="utf-8").replace('source = "digits-dynamic"', 'source = "digits"')  # whose rows do not change at each reading
    text = text.replace(shipped.rules.data.sha256, load("digits").sha256)
    lines = [line for line in text.splitlines() if not line.startswith(("metrics", "entrants", "classical"))]
    listed = f"metrics = {list(COLUMNS)}\nentrants = {list(HONEST)}\n".replace("'", '"')
    tier = '[tiers.tiny]\nlabel = "a test"\nsteps = 400\nseeds = [0]\nrows = 500\nsamples = 50\n'
    (folder / "challenge.toml").write_text("\n".join(lines[:5]) + "\n" + listed + "\n".join(lines[5:]) + "\n" + tier, encoding="utf-8")
    arena = Arena(folder / "out", load_challenge(folder), "tiny")
    start(arena)
    found = {}
    threads = torch.get_num_threads()
    try:
        for entrant in [Entrant(parse(c)) for c in HONEST] + [own_entrant(f"{FILE}:{name}") for name in CHEATS]:
            found[entrant.call.entry.name] = do(entrant.job(0, arena.challenge, "tiny", arena.folder))
    finally:
        torch.set_num_threads(threads)
        RECIPES._parts.clear()
        RECIPES._parts.update(before)
    assert {n: r.reason for n, r in found.items() if r.status != "done"} == {}
    return found


def value(board, name, column):
    return board[name].metrics[column].value


def test_a_copycat_shows_in_the_copies(board):
    cell = board["copycat"].metrics["copied_pca64"]
    assert cell.value - 3 * cell.error > 0.9
    for honest in ("vae", "mixture"):
        assert value(board, honest, "copied_pca64") < 0.5
    assert "no density" in board["copycat"].refused["nll"]


def test_a_collapsed_generator_shows_in_coverage_and_recall(board):
    for column in ("coverage_pca64", "recall_pca64"):
        assert value(board, "collapsed", column) < 0.2
        assert value(board, "collapsed", column) < value(board, "vae", column) / 3
    assert value(board, "collapsed", "frechet_pca64") > 2 * value(board, "mixture", "frechet_pca64")


def test_a_blurry_model_shows_in_blur_and_in_its_samples(board):
    assert value(board, "blurry", "blur") < 0.5 * value(board, "vae", "blur")
    assert value(board, "blurry", "reconstruction_mse") > 1.3 * value(board, "vae", "reconstruction_mse")


@pytest.mark.parametrize(("name", "nats", "words"), [("overclaimer", 5.0, r"log q\) of 'z' sums to e\^-5.0"), ("loud", 6.4, r"log p\) of 'x' sums to e\^6.4")])
def test_nats_that_are_claimed_and_not_there_are_refused(board, name, nats, words):
    cell = board[name].metrics["audit"]
    assert cell.value == pytest.approx(nats, abs=0.05) and cell.error < 0.02
    for column in ("nll", "elbo", "split_gap"):
        assert column not in board[name].metrics
        assert re.search(words, board[name].refused[column])


def test_learning_the_test_rows_shows_in_the_gap_of_the_splits(board):
    assert value(board, "peeker", "nll") < min(value(board, name, "nll") for name in ("vae", "mixture", "kernel_density", "png"))  # it would lead the board
    assert value(board, "peeker", "split_gap") > 8


@pytest.mark.parametrize("name", [c.partition(":")[0] for c in HONEST])
def test_honest_entrants_pass(board, name):
    assert abs(value(board, name, "split_gap")) < 4
    cell = board[name].metrics["audit"]
    assert abs(cell.value) < 0.05 + 5 * cell.error
    assert math.isfinite(value(board, name, "nll"))


def test_a_compressor_stands_on_the_board_without_samples(board):
    assert board["png"].samples_per_second is None and board["png"].seconds is not None and board["png"].steps == 0
    assert "no rows" in board["png"].refused["frechet_pca64"]


class Scaled(Independent):
    """A law whose joint log density is off by a constant."""

    def log_prob(self, value):
        return super().log_prob(value) + 1.5


class Narrow(Normal):
    """Draws half as wide as its log density says."""

    def rsample(self, sample_shape=torch.Size()):
        return self.loc + (super().rsample(sample_shape) - self.loc) / 2


@pytest.mark.parametrize("law", [Normal, Laplace, lambda m, s: StudentT(4.0, m, s)])
def test_quadrature_finds_one(law):
    dist = Independent(law(torch.tensor([[0.0, 100.0], [-3.0, 1e-3]]).double(), torch.tensor([[1.0, 1e-4], [30.0, 1.0]]).double()), 1)
    torch.manual_seed(0)
    torch.testing.assert_close(summed(dist, 0), torch.zeros(2, dtype=torch.float64), atol=1e-3, rtol=0)


def test_enumeration_finds_one_and_more():
    torch.manual_seed(0)
    for family, n in ((Binned(Gaussian(3), 17), 17), (Binned(Logistic(3), 256), 256)):
        dist = family(torch.randn(4, 2 * 2, 3, 3))
        torch.testing.assert_close(summed(dist, n), torch.zeros(4, dtype=torch.float64), atol=1e-4, rtol=0)
    loud = Scaled(Bernoulli(logits=torch.randn(3, 5)), 1)
    torch.testing.assert_close(apart(loud, torch.ones(3, 5)), torch.full((3,), 1.5, dtype=torch.float64))


@pytest.mark.parametrize(
    ("dist", "off"),
    [
        (Independent(Normal(torch.randn(8, 40), 0.1), 1), 0.0),
        (Scaled(Normal(torch.randn(8, 40), 0.1), 1), 1.5),
        (MultivariateNormal(torch.zeros(8, 20), torch.eye(20) * 2 + 0.5), 0.0),
        (Independent(Hard(torch.randn(8, 3, 6)), 1), 0.0),
    ],
)
def test_draws_weigh_a_law(dist, off):
    torch.manual_seed(0)
    found = weighed(dist)
    mean, error = float(found.log.mean()), float(found.error.square().sum().sqrt() / len(found.error))
    assert abs(mean - off) < 5 * error + 0.01


def test_draws_that_are_not_those_of_the_density_show():
    torch.manual_seed(0)
    found = weighed(Independent(Narrow(torch.zeros(8, 2), torch.ones(2)), 1))  # each weight is r / q, r half as wide: E = 2 / sqrt(7 / 4)... above 1
    assert float(found.log.mean()) < -0.4


def test_laws_that_draws_cannot_tell_of_are_said_to_be_so():
    far = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(torch.ones(2)), Independent(Normal(torch.tensor([[-60.0] * 8, [60.0] * 8]), 0.1), 1)
    )
    with pytest.raises(UsageError, match="stays unproven"):
        weighed(far)
