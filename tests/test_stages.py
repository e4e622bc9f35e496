"""Priors fitted after training: densities against scikit-learn's, nats on held-out rows, and runs that come back as they were."""

import json
import math
import sys
from pathlib import Path

import pytest
import torch
from sklearn.mixture import GaussianMixture as Mixture
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal
from typer.testing import CliRunner, Result

import vaestro
from vaestro.cli.app import app
from vaestro.data.rows import Rows
from vaestro.data.schema import Binary, Field
from vaestro.errors import UsageError, VaestroError
from vaestro.priors import PRIORS, FullMixture, GaussianMixture, StandardNormal
from vaestro.priors.fitted import FITTED, Kde, Latents, Reshaped, fit, over_vectors
from vaestro.recipes import RECIPES
from vaestro.recipes.files import bring
from vaestro.testing import toy_schema
from vaestro.training.listing import listing
from vaestro.training.runs import Run, title
from vaestro.training.stages import USUAL, Effort, able, book, descend, latent_of, log_density, prior_call
from vaestro.uses.evaluate import Protocol
from vaestro.uses.fitting import fit_prior

FIELD = Field("x", Binary(), (1, 8, 8))


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("stages")
    return vaestro.train("vae:latents=4,hidden=32", "digits-dynamic", steps=300, out=folder / "first")


def no_gradients(prior: nn.Module) -> dict[str, int]:
    raise AssertionError("this prior is fitted in closed form")


def cloud(n: int = 900) -> Tensor:
    torch.manual_seed(0)
    centres = torch.tensor([[3.0, 0.0, -1.0], [-3.0, 1.0, 0.0], [0.0, -4.0, 2.0]], dtype=torch.float64)
    mix = torch.randn(3, 3, 3, dtype=torch.float64) * 0.5
    k = torch.randint(3, (n,))
    return centres[k] + (mix[k] @ torch.randn(n, 3, 1, dtype=torch.float64)).squeeze(-1)


@pytest.mark.parametrize(("kind", "name"), [(FullMixture, "full"), (GaussianMixture, "diag")])
@pytest.mark.parametrize("components", [1, 3])
def test_a_fitted_mixture_has_the_density_of_scikit_learns(kind: type[FullMixture] | type[GaussianMixture], name: str, components: int) -> None:
    z = cloud()
    prior = kind(3, components).double()
    torch.manual_seed(5)
    seed = int(torch.randint(2**31 - 1, ()))
    torch.manual_seed(5)
    told = fit(prior, z, z, no_gradients)
    reference = Mixture(components, covariance_type=name, max_iter=200, random_state=seed).fit(z.numpy())
    torch.testing.assert_close(prior().log_prob(z), torch.from_numpy(reference.score_samples(z.numpy())), rtol=1e-9, atol=1e-9)
    single = kind(3, components)
    torch.manual_seed(5)
    fit(single, z.float(), z.float(), no_gradients)
    torch.testing.assert_close(single().log_prob(z.float()).double(), torch.from_numpy(reference.score_samples(z.numpy())), rtol=1e-3, atol=1e-3)
    assert told["converged"] and told["iterations"] >= 1


def test_a_kde_is_the_mean_of_gaussians_around_its_rows() -> None:
    z = cloud(300)
    prior = Kde(3, 200).double()
    torch.manual_seed(0)
    told = fit(prior, z[:200], z[200:], no_gradients)
    scale = told["width"] * z[:200].std(0, correction=0) + 1e-4
    each = Normal(prior.rows.unsqueeze(1), scale).log_prob(z[200:]).sum(-1)
    torch.testing.assert_close(prior().log_prob(z[200:]), each.logsumexp(0) - math.log(200))
    assert {tuple(r.tolist()) for r in prior.rows} == {tuple(r.tolist()) for r in z[:200]}
    for other in (0.5, 2.0):  # the width that the held-out rows like best
        worse = Kde(3, 200).double()
        worse.rows.copy_(prior.rows)
        with torch.no_grad():
            worse.log_scale.copy_(prior.log_scale + math.log(other))
        assert worse().log_prob(z[200:]).mean() < prior().log_prob(z[200:]).mean()


def test_descent_keeps_what_was_best_on_held_out_rows_and_stops() -> None:
    torch.manual_seed(0)
    rows, held = torch.randn(40, 2), torch.randn(200, 2)
    prior = PRIORS["autoregressive"](2, nn.Identity(), FIELD)
    seen = []
    told = descend(prior, rows, held, (Effort(800, 0, USUAL), seen.append))
    assert told["steps"] < 800, "forty rows are soon learnt by heart"
    kept = log_density(prior, held)
    assert kept == pytest.approx(max(line["best"] for line in seen), abs=1e-5)
    assert seen[-1]["merit"] < kept


def test_descent_never_ends_worse_than_it_began() -> None:
    prior = GaussianMixture(2, 1)
    held = torch.randn(500, 2)
    before = log_density(prior, held)
    descend(prior, torch.randn(30, 2) + 5, held, (Effort(30), lambda line: None))
    assert log_density(prior, held) >= before


def test_priors_over_vectors_take_events_of_any_shape() -> None:
    torch.manual_seed(0)
    event = (2, 3)
    latents = Latents(event, StandardNormal(event), nn.Identity(), FIELD)
    z = torch.randn(400, *event) * torch.tensor([1.0, 2.0, 3.0]) + 4
    for name in ("gmm", "kde", "flow"):
        prior = book()[name].build(latents)
        assert isinstance(prior, Reshaped)
        fit(prior, z, z, lambda part: {"part": type(part).__name__})
        dist: Distribution = prior()
        assert dist.event_shape == event and dist.sample(torch.Size((5,))).shape == (5, *event)
        torch.testing.assert_close(dist.log_prob(z), prior.prior().log_prob(z.flatten(1)))
        assert dist.log_prob(z).mean() > StandardNormal(event)().log_prob(z).mean()


@pytest.mark.parametrize("call", ["gmm:components=5", "gmm:components=5,covariance=diagonal", "kde", "spline:layers=2", "autoregressive"])
def test_a_fitted_prior_raises_held_out_log_densities_and_lowers_nats(call: str, first: Run, tmp_path: Path) -> None:
    before = first.model.state_dict()
    kept = {n: t.clone() for n, t in before.items()}
    new = fit_prior(first, call, out=tmp_path / "new", steps=100)
    (stage,) = new.about["stages"]
    assert stage["log_density"]["after"] > stage["log_density"]["before"] + 0.1
    assert all(torch.equal(before[n], t) for n, t in kept.items()), "the first run stays as it is"
    for name, w in new.model.state_dict().items():
        if not name.startswith("prior."):
            assert torch.equal(w, kept[name])
    rows = Protocol(rows=180, samples=50)
    nll = [vaestro.evaluate(run, rows).scores["nll"]["value"] for run in (first, new)]
    assert nll[1] < nll[0] - 0.1
    again = vaestro.open_run(tmp_path / "new")
    assert vaestro.evaluate(again, rows).scores["nll"]["value"] == nll[1]
    torch.testing.assert_close(vaestro.generate(again, 5), vaestro.generate(new, 5), rtol=0, atol=0)
    assert not torch.equal(vaestro.generate(again, 5), vaestro.generate(first, 5))
    x = torch.zeros(2, 1, 8, 8)
    assert torch.equal(vaestro.embed(again, x), vaestro.embed(first, x)) and torch.equal(vaestro.reconstruct(again, x), vaestro.reconstruct(first, x))


def test_the_folder_says_how_it_came_about(first: Run, tmp_path: Path) -> None:
    new = fit_prior(first, "gmm:components=2", out=tmp_path / "new", seed=3)
    about = json.loads((tmp_path / "new" / "run.json").read_text())
    (stage,) = about["stages"]
    assert stage["prior"] == "gmm:components=2" and stage["keywords"] == {"components": "2", "covariance": "full"}
    assert stage["run"] == first.name and stage["weights_sha256"] == first.about["weights_sha256"] and stage["seed"] == 3
    assert stage["rows"] == {"split": "train", "rows": 1437, "draws": 14}
    assert about["call"] == first.about["call"] and about["weights_sha256"] != first.about["weights_sha256"]
    assert about["parameters"] > first.about["parameters"] and title(about) == "vae:latents=4,hidden=32 + gmm:components=2"
    assert listing(tmp_path)[0]["call"] == title(about) and vaestro.evaluate(new, Protocol(rows=20, samples=5)).about["call"] == title(about)
    assert [f.name for f in sorted((tmp_path / "new").iterdir()) if not f.name.startswith(".")] == ["metrics.jsonl", "model.safetensors", "run.json"]
    assert vaestro.diagnose(new).signs.off_prior < vaestro.diagnose(first).signs.off_prior + 0.05
    twin = fit_prior(first, "gmm:components=2", out=tmp_path / "twin", seed=3)
    assert twin.about["weights_sha256"] == new.about["weights_sha256"], "the same seed gives the same bits"


def test_a_second_prior_takes_the_place_of_the_first(first: Run, tmp_path: Path) -> None:
    one = fit_prior(first, "kde:rows=50", out=tmp_path / "one")
    two = fit_prior(one, "gmm:components=2", out=tmp_path / "two")
    assert [s["prior"] for s in two.about["stages"]] == ["kde:rows=50", "gmm:components=2"]
    assert isinstance(vaestro.open_run(tmp_path / "two").model.get_submodule("prior"), FullMixture)


def test_a_plain_autoencoder_gets_a_sampler_and_no_density(tmp_path: Path) -> None:
    run = vaestro.train("ae:latents=3,hidden=32", "digits-dynamic", steps=150, out=tmp_path / "ae")
    new = fit_prior(run, "gmm:components=5", out=tmp_path / "new")
    scored = vaestro.evaluate(new, Protocol(rows=50, samples=5))
    assert "nll" in scored.about["refused"] and "reconstruction_mse" in scored.scores
    x = Rows(run.data().split("test"), run.schema).batch(torch.arange(180))["x"]
    codes, drawn, plain = vaestro.embed(new, x), new.model.generate(2000)["z"].value, run.model.generate(2000)["z"].value
    gap = [(z.mean(0) - codes.mean(0)).norm() + (z.std(0) - codes.std(0)).norm() for z in (drawn, plain)]
    assert gap[0] < 0.5 * gap[1], "samples start where rows are encoded"
    assert vaestro.generate(new, 4).shape == (4, 1, 8, 8)


def test_vade_starts_from_a_fitted_mixture(first: Run, tmp_path: Path) -> None:
    fit_prior(first, "gmm:components=3", out=tmp_path / "fitted")
    clustered = vaestro.train("vade:components=3,latents=4,hidden=32,settle=0.0", "digits-dynamic", steps=2, out=tmp_path / "vade", start=tmp_path / "fitted")
    assert clustered.about["status"] == "done"


class Shifted(nn.Module):
    """N(m, I) with a learnt mean."""

    def __init__(self, latents: int) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(latents))

    def forward(self) -> Distribution:
        return MultivariateNormal(self.mean, torch.eye(len(self.mean)), validate_args=False)


def test_a_prior_of_ones_own_is_fitted_once_it_is_registered(first: Run, tmp_path: Path) -> None:
    def shifted(latents: Latents) -> nn.Module:
        return Shifted(math.prod(latents.event))

    with pytest.raises(UsageError, match="decorate it with @FITTED.register"):
        fit_prior(first, shifted, out=tmp_path / "own")
    FITTED.register(shifted)
    try:
        new = fit_prior(first, shifted, out=tmp_path / "own", steps=20)
        assert new.about["stages"][0]["steps"] == 20 and new.about["stages"][0]["training"]["batch"] == "256"
        assert isinstance(vaestro.open_run(tmp_path / "own").model.get_submodule("prior"), Shifted)
        assert fit_prior(first, FITTED["gmm"], out=tmp_path / "gmm").about["stages"][0]["prior"] == "gmm"
    finally:
        del FITTED._parts["shifted"]
    with pytest.raises(UsageError, match="prior is 'shifted', which is not known here"):
        vaestro.open_run(tmp_path / "own")


def test_the_command_fits_and_says_what_came_of_it(first: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> Result:
        return CliRunner().invoke(app, ["fit-prior", str(first.folder), *words])

    done = call("kde:rows=50", "--out", "new")
    assert done.exit_code == 0 and "Fitted kde:rows=50 to first" in done.stdout and "log p(z) on validation rows" in done.stdout
    assert vaestro.open_run(tmp_path / "new").about["stages"][0]["prior"] == "kde:rows=50"
    idle = call("standard_normal", "--out", "idle")
    assert idle.exit_code == 0 and "Note: the old prior suits validation rows as well or better" in idle.stdout
    said = json.loads(call("kde:rows=20", "--out", "other", "--json").stdout)
    assert said["run"] == "other" and said["stages"][0]["keywords"] == {"rows": "20"}
    wrong = call("gmn", "--out", "none")
    assert wrong.exit_code == 2 and wrong.stderr.strip() == "vaestro: there is no prior to fit called 'gmn'; did you mean gmm?"
    assert not (tmp_path / "none").exists()


def test_a_file_of_priors_alone_may_be_brought(first: Run, tmp_path: Path) -> None:
    file = tmp_path / "my_priors.py"
    file.write_text(
        "from vaestro.priors import GaussianMixture\nfrom vaestro.priors.fitted import FITTED\n\n\n"
        "@FITTED.register\ndef lone(latents):\n    return GaussianMixture(latents.event[0], 1)\n"
    )
    try:
        assert bring(file) == frozenset()
        assert fit_prior(first, "lone", out=tmp_path / "new").about["stages"][0]["converged"]
    finally:
        FITTED._parts.pop("lone", None)


def test_which_recipes_have_one_prior_slot() -> None:
    found = able(toy_schema(Binary()))
    assert {"vae", "ae", "iwae", "vamp", "exemplar", "vae_gan"} <= set(found)
    assert not {"top_down", "cvae", "m2"} & set(found) and set(found) <= set(RECIPES)


@pytest.mark.parametrize(
    ("prior", "words"),
    [
        ("gmn", "no prior to fit called 'gmn'; did you mean gmm"),
        ("gmm:component=2", "prior 'gmm' has no keyword 'component'; did you mean components"),
        ("gmm:components=0", "0 components"),
        ("gmm:components=2.5", "components should be a valid integer"),
        ("gmm:covariance=ful", "no covariance called 'ful'; did you mean full"),
        ("gmm:learning_rate=0.1", "not fitted by gradients, so it takes no learning_rate"),
        ("gmm:components=30000", "cannot be fitted to"),
        ("spline:bins=1", "two or more"),
        ("kde:rows=0", "one or more"),
    ],
)
def test_bad_calls_are_refused_in_one_sentence_and_nothing_is_written(prior: str, words: str, first: Run, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        fit_prior(first, prior, out=tmp_path / "new", steps=3)
    assert words in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "new").exists()


def test_models_without_one_prior_slot_are_refused_with_those_that_have_one(tmp_path: Path) -> None:
    run = vaestro.train("top_down:width=16,latents=3", "digits-dynamic", steps=2, out=tmp_path / "ladder")
    with pytest.raises(UsageError, match=r"^top_down.* has not exactly one prior.*recipes that have one: .*vae"):
        fit_prior(run, "gmm")
    codes = vaestro.train("vq_vae:codes=5,dimension=3,hidden=4x4", "digits-dynamic", steps=2, out=tmp_path / "codes")
    with pytest.raises(UsageError, match="codes, and gmm is a prior over real numbers"):
        fit_prior(codes, "gmm")


def test_places_that_cannot_be_written_are_refused(first: Run, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="already holds a run"):
        fit_prior(first, "gmm", out=first.folder)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is a file"):
        fit_prior(first, "gmm", out=tmp_path / "file")
    with pytest.raises(VaestroError, match="cannot make the folder"):
        fit_prior(first, "kde:rows=20", out=tmp_path / "file" / "below")
    with pytest.raises(UsageError, match="in 0 steps"):
        fit_prior(first, "gmm", steps=0)


def test_without_scikit_learn_one_sentence_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.mixture", None)
    with pytest.raises(UsageError, match=r"pip install 'vaestro\[science\]'"):
        fit(GaussianMixture(2, 2), torch.randn(9, 2), torch.randn(9, 2), no_gradients)


def test_a_prior_that_is_told_something_is_no_slot() -> None:
    class Told(vaestro.VAE):
        """A VAE whose prior is told a number."""

        def program(self, batch=None):
            z = yield vaestro.Site("z", self.prior(torch.zeros(2)), None)
            yield vaestro.Site("x", self.likelihood(z))

    class Free(nn.Module):
        """N(0, I), whatever it is told."""

        def forward(self, *contexts: Tensor) -> Distribution:
            return Independent(Normal(torch.zeros(2), 1.0), 1)

    assert latent_of(Told(Free(), nn.Identity(), Free())) == ""
    assert latent_of(vaestro.VAE(Free(), nn.Identity(), Free())) == "z"
    assert prior_call("gmm").keywords["components"] == 10 and over_vectors(PRIORS["vamp"]).__name__ == "vamp"
