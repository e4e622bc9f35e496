"""The monitor names what is wrong, on runs made to be wrong, and is silent on a healthy one."""

from dataclasses import replace

import pytest
import torch
from torch.distributions import Independent, Normal

from vaestro import api
from vaestro.core import Draw, Trace
from vaestro.training.diagnosis import RULES, Signs, diagnose
from vaestro.training.monitor import informative, kl_by_dimension, posterior_means

HEALTHY = Signs(1000, 40, 20, 18, 25.0, {}, 300.0, 0.02, 0.8, 0.7, 0, [{"step": n, "validation": 200 - 100 * (1 - 0.5**n)} for n in range(12)])


def named(signs: Signs) -> set[str]:
    return {finding.name for rule in RULES for finding in rule(signs)}


def falling(*scores: float) -> list[dict]:
    return [{"step": n, "validation": s} for n, s in enumerate(scores)]


@pytest.mark.parametrize(
    ("signs", "name"),
    [
        (replace(HEALTHY, informative=9), "posterior collapse"),
        (replace(HEALTHY, informative=0, active_units=216, latents=256, kl=3.5), "posterior collapse"),
        (replace(HEALTHY, gain=0.4), "the decoder ignores z"),
        (replace(HEALTHY, off_prior=3.1), "latents off the prior"),
        (replace(HEALTHY, off_prior=-0.5), "latents off the prior"),
        (replace(HEALTHY, sharpness=0.2), "blur"),
        (replace(HEALTHY, skipped=3), "instability"),
        (replace(HEALTHY, log=[{"step": 100, "too_large": 11}]), "held back"),
        (replace(HEALTHY, log=falling(100, 120, 150, 190, 200)), "divergence"),
        (replace(HEALTHY, log=falling(200, 150, 120, 100, 101, 104, 110)), "overfitting"),
        (replace(HEALTHY, log=falling(200, 180, 160, 140, 120, 100)), "stopped early"),
    ],
)
def test_each_sign_has_its_name_a_cause_and_a_remedy(signs, name):
    assert named(signs) == {name}
    for finding in (f for rule in RULES for f in rule(signs)):
        assert finding.cause
        assert finding.remedy
        assert "\n" not in finding.cause + finding.remedy


def test_a_healthy_run_has_no_findings():
    assert named(HEALTHY) == set()


def trace_of(loc: torch.Tensor, scale: torch.Tensor) -> Trace:
    q = Independent(Normal(loc, scale), 1)
    p = Independent(Normal(torch.zeros(loc.shape[-1]), 1.0), 1)
    z = q.sample()
    return Trace({"z": Draw(z, p, q, p.log_prob(z), q.log_prob(z), False)})


def test_kl_and_means_by_dimension_have_their_closed_forms():
    loc, scale = torch.tensor([[1.0, 0.0, 3.0], [-1.0, 0.0, 3.0]]), torch.tensor([0.5, 1.0, 2.0])
    t = trace_of(loc, scale.expand(2, 3))
    expected = (loc.square().mean(0) + scale.square() - 1) / 2 - scale.log()
    assert torch.allclose(kl_by_dimension(t)["z"], expected)
    assert torch.equal(posterior_means(t)["z"], loc)
    assert informative(3, 1, [expected]) == 2  # the second dimension is the prior itself
    assert informative(3, 1, []) == 1  # nothing splits: fall back on the moving means
    assert [informative(9, 8, [], nats) for nats in (0.74, 5.0, -0.1)] == [7, 8, 0]  # which the whole KL has to pay for


def trained(tmp_path, call: str, data: str, steps: int):
    return diagnose(api.train(call, data, steps=steps, out=tmp_path / "r"))


def test_listing_mse_is_caught_as_collapsed(tmp_path):
    found = trained(tmp_path, "listing_mse", "digits", 400)
    assert "posterior collapse" in {f.name for f in found.findings}
    assert found.signs.latents == 256
    assert found.signs.informative < 64


def test_a_healthy_vae_is_not(tmp_path):
    found = trained(tmp_path, "vae:latents=8,hidden=128,batch=64", "digits", 500)
    assert {f.name for f in found.findings} & {"posterior collapse", "the decoder ignores z", "divergence", "instability"} == set()
    assert found.signs.informative >= 2
    assert found.signs.gain > 10
    assert found.to_json()["signs"]["latents"] == 8


def test_an_autoencoder_is_told_that_its_latents_follow_no_prior(tmp_path):
    found = trained(tmp_path, "ae:latents=8,hidden=128,batch=64", "digits-dynamic", 500)
    assert "latents off the prior" in {f.name for f in found.findings}
    assert found.signs.kl is None


def test_a_decoder_that_cannot_see_z_is_named(tmp_path):
    found = trained(tmp_path, "beta_vae:beta=1000,latents=4,hidden=32", "digits-dynamic", 200)
    assert {"posterior collapse", "the decoder ignores z"} <= {f.name for f in found.findings}
    assert abs(found.signs.gain) < 1


def test_looking_changes_neither_weights_nor_random_numbers(tmp_path):
    run = api.train("vae:latents=4,hidden=16", "digits-dynamic", steps=10, out=tmp_path / "r")
    before, state = {n: w.clone() for n, w in run.model.state_dict().items()}, torch.get_rng_state()
    first, second = diagnose(run), diagnose(run)
    assert first.to_json() == second.to_json()
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[n], w) for n, w in run.model.state_dict().items())
