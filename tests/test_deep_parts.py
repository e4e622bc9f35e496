"""What deep models need to train: their blocks, their flows and spectral norms, recomputed activations, gradients that are too long."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

import vaestro
from vaestro.core import draw, scores
from vaestro.data.schema import Binary
from vaestro.errors import UsageError, VaestroError
from vaestro.models import Plan, very_deep
from vaestro.networks import blocks
from vaestro.networks.residual import resnet
from vaestro.networks.spectral import Spectral, matrices
from vaestro.optimizers import OPTIMIZERS
from vaestro.posteriors import MapFlow, MapGate
from vaestro.recipes import parse
from vaestro.testing import check_network, toy_batch, toy_schema
from vaestro.testing.waiting import reads
from vaestro.training.loop import Loop, weights

MAPS = ("vdvae", "nvae", "resnet_vae_iaf")
TINY = "blocks=1x1x0,width=8,latents=2"
VAE = "vae:latents=3,hidden=16,batch=6"
CPU = torch.device("cpu")
X = toy_batch(Binary(), 6)


def loop_of(call, total=10, seed=0):
    return Loop(parse(call).cook(toy_schema(Binary()), seed), seed, total, CPU)


def same_weights(a, b):
    a, b = weights(a.parts), weights(b.parts)
    return a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)


# blocks


def block(name):
    """A block as a builder of networks from a map to a map of as many channels, or of others for the bottleneck."""

    def build(inputs, outputs, hidden):
        size = inputs[1:]
        layers = {
            "bottleneck": lambda: blocks.bottleneck(inputs[0], outputs[0], size),
            "encoder cell": lambda: blocks.encoder_cell(inputs[0], size),
            "decoder cell": lambda: blocks.decoder_cell(inputs[0], size),
        }
        return blocks.over(size, inputs[0], outputs[0], *layers[name]())

    return build


@pytest.mark.parametrize("size", [(7, 5), (2, 2), (1, 3), (1, 1)])
@pytest.mark.parametrize("name", ["bottleneck", "encoder cell", "decoder cell"])
def test_a_block_keeps_the_contract_of_networks(name, size):
    check_network(block(name), (8, *size), (8, *size), ())


def test_a_bottleneck_has_the_papers_sides():
    for size, sides in (((8, 8), [1, 3, 3, 1]), ((2, 2), [1, 1, 1, 1])):
        layers = [m for m in blocks.bottleneck(16, 24, size).modules() if isinstance(m, nn.Conv2d)]
        assert [m.kernel_size[0] for m in layers] == sides and [m.out_channels for m in layers] == [6, 6, 6, 24]
    assert not blocks.bottleneck(8, 8, (4, 4), 0.0)[-1].weight.any()


def test_the_last_weights_of_residual_blocks_shrink_with_the_depth():
    def spread(depth):
        return very_deep(Plan((depth,), 64, 2)).climb((8, 8)).net[-1].weight.detach().std().item()

    assert math.isclose(spread(1) / spread(25), 5, rel_tol=0.1)
    wide = [m for m in blocks.decoder_cell(8, (4, 4)).modules() if isinstance(m, nn.Conv2d)][1]
    assert (wide.groups, wide.kernel_size) == (24, (5, 5))


def test_squeeze_and_excite_is_a_gate_for_each_channel():
    layer, x = blocks.SqueezeExcite(8), torch.randn(3, 8, 4, 5)
    first, _, second, _ = layer.gate
    gate = torch.sigmoid(second(F.silu(first(x.flatten(2).mean(-1)))))
    torch.testing.assert_close(layer(x), x * gate[:, :, None, None])


def test_shrinking_and_unpooling_meet_at_any_size():
    x = torch.arange(15.0).reshape(1, 1, 3, 5)
    small = blocks.Shrink()(x)
    torch.testing.assert_close(small[0, 0], torch.tensor([[3.0, 5.0, 6.5], [10.5, 12.5, 14.0]]))  # means of 2x2, 2x1, 1x2 and 1x1 pixels
    unpool = blocks.Unpool(1, (3, 5))
    nn.init.normal_(unpool.bias)
    assert torch.equal(unpool(small)[0, 0, :2, :4], small[0, 0, 0, :2].repeat_interleave(2).expand(2, 4) + unpool.bias[0, :2, :4])
    assert blocks.Shrink()(torch.ones(2, 3, 1, 1)).shape == (2, 3, 1, 1)


@pytest.mark.parametrize("depth", [1, 3])
def test_deeper_residual_networks_keep_the_contract(depth):
    for inputs, outputs, hidden in (((1, 9, 6), (3,), (4, 6)), ((3,), (1, 9, 6), (6, 4)), ((1, 9, 6), (2, 9, 6), (4,))):
        check_network(resnet(depth), inputs, outputs, hidden)
    with pytest.raises(UsageError, match="0 blocks"):
        resnet(0)


# the flow over maps


@pytest.mark.parametrize("event", [(2, 3, 2), (1, 2, 3), (3, 1, 1), (2, 1, 2), (1, 1, 1)])
@pytest.mark.parametrize("layer", [0, 1])
def test_a_gate_over_maps_is_triangular_and_tells_its_determinant(event, layer):
    gate, d = MapGate(event, layer, 4).double(), math.prod(event)
    for w in gate.parameters():
        nn.init.normal_(w, std=0.5)
    u, context = torch.randn(d, dtype=torch.float64), torch.randn(4 * event[1] * event[2], dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda v: gate.inverse(v, context)[0], u)
    torch.testing.assert_close(gate.inverse(u, context)[1], -torch.linalg.slogdet(jacobian)[1])
    place = torch.arange(d).reshape(event).permute(1, 2, 0).flatten()  # row by row, and at a pixel channel by channel
    ordered = jacobian[place][:, place]
    assert torch.equal(ordered, ordered.triu() if layer else ordered.tril()) and (ordered.diagonal() > 0).all()
    assert d == 1 or (ordered - ordered.diagonal().diag()).abs().max() > 1e-3 or event[1:] == (1, 1)


def test_a_flow_over_maps_scores_its_draws_by_the_change_of_variables():
    flow = MapFlow((2, 2, 3), 3, 4).double()
    for w in flow.parameters():
        nn.init.normal_(w, std=0.3)
    h = torch.randn(flow.numbers, 2, 3, dtype=torch.float64)
    dist = flow(h)
    u = torch.randn(12, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda v: dist.bijection.inverse(v, dist.context)[0], u)
    log_q = dist.base.log_prob(u) + dist.bijection.inverse(u, dist.context)[1]
    torch.testing.assert_close(log_q, dist.base.log_prob(u) - torch.linalg.slogdet(jacobian)[1])
    value, log_p = draw(flow(h.expand(5, *h.shape)), (3,))
    assert value.shape == (3, 5, 2, 2, 3) and log_p.shape == (3, 5) and not scores(dist)
    assert dist.expand((4,)).sample((2,)).shape == (2, 4, 2, 2, 3)
    for misuse in (lambda: dist.log_prob(value[0, 0]), lambda: MapFlow((2, 2, 2), 0, 4)):
        with pytest.raises(UsageError):
            misuse()


def test_without_gates_moved_the_flow_is_the_gaussian_of_its_numbers():
    """A gate whose weights are all zero maps u to sigmoid(2) u: the flow is a Gaussian with its scale so narrowed."""
    flow = MapFlow((2, 2, 2), 1, 4).double()
    for w in flow.parameters():
        nn.init.zeros_(w)
    h = torch.randn(3, flow.numbers, 2, 2, dtype=torch.float64)
    value, log_q = draw(flow(h), (4,))
    loc, s = h[:, 4:6], h[:, 6:8]
    narrow = torch.sigmoid(torch.tensor(2.0, dtype=torch.float64))
    scale = 1e-4 + F.softplus(s + math.log(math.e - 1))
    exact = torch.distributions.Independent(torch.distributions.Normal(narrow * loc, narrow * scale), 3)
    torch.testing.assert_close(log_q, exact.log_prob(value))


# spectral norms


def test_spectral_norms_are_the_largest_singular_values():
    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 5, groups=6), nn.Flatten(), nn.Linear(6, 4)).double()
    exact = sum(torch.linalg.svdvals(w)[0] for w in matrices(net))
    part = Spectral(net).double()
    found = [part(net) for _ in range(500)]
    assert all(f <= exact + 1e-9 for f in found)
    torch.testing.assert_close(found[-1], exact, rtol=1e-6, atol=0)
    a = torch.autograd.grad(found[-1], list(net.parameters()), allow_unused=True)
    b = torch.autograd.grad(exact, list(net.parameters()), allow_unused=True)
    for x, y in zip(a, b, strict=True):
        assert (x is None) == (y is None) and (x is None or torch.allclose(x, y, atol=1e-3))
    assert not list(part.parameters())


def test_the_price_of_spectral_norms_stands_in_the_loss_and_in_the_table():
    losses = {}
    for spectral in (0.0, 0.5):
        loop = loop_of(f"nvae:{TINY},spectral={spectral}")
        torch.manual_seed(3)
        (move,) = loop.recipe.play(loop.parts, X, vaestro.plays.Clock(9, 10))
        losses[spectral] = move.loss
        price = move.terms["spectral"]
    torch.testing.assert_close(losses[0.5] - losses[0.0], (0.5 * price).expand(6), rtol=1e-3, atol=1e-3)


# activations


@pytest.mark.parametrize("name", MAPS)
def test_recomputed_activations_give_equal_bits_and_keep_less(name):
    kept = {}
    loops = {}
    for way in ("stored", "recomputed"):
        loops[way] = loop_of(f"{name}:blocks=3x2x0,width=8,latents=2,activations={way}")
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, sizes=sizes: sizes.append(t.numel()) or t, lambda t: t):
            loops[way].parts["model"](X, 2)
        kept[way] = sum(sizes)
        for _ in range(3):
            loops[way].step(lambda: X)
    a, b = loops.values()
    assert same_weights(a, b) and a.flush() == b.flush()
    assert kept["recomputed"] < 0.9 * kept["stored"]


# gradients that are too long


@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
def test_a_gradient_longer_than_skip_moves_nothing_and_is_counted_apart(optimizer):
    still = loop_of(f"{VAE},optimizer={optimizer},skip=0.001,clip=1,ema=0.9")
    before = {n: w.clone() for n, w in weights(still.parts).items()}
    for _ in range(3):
        still.step(lambda: X)
    assert all(torch.equal(before[n], w) for n, w in weights(still.parts).items())
    assert (int(still.too_large), int(still.skipped)) == (3, 0)
    assert all(torch.equal(before[n], w) for n, w in still.average.items())


def test_a_gradient_shorter_than_skip_moves_as_without_it():
    free, bound = loop_of(VAE), loop_of(f"{VAE},skip=1e9")
    for loop in (free, bound):
        for _ in range(3):
            loop.step(lambda: X)
    assert same_weights(free, bound) and int(bound.too_large) == 0


def test_skip_acts_on_the_steps_that_are_too_long_alone():
    recipe = parse(f"{VAE},skip=1000").cook(toy_schema(Binary()))

    def spiked(parts, batch, clock):
        for move in recipe.play(parts, batch, clock):
            yield move._replace(loss=move.loss * {1: 1e6, 2: math.nan, 3: math.inf}.get(clock.step, 1.0))

    loop = Loop(replace(recipe, play=spiked), 0, 10, CPU)
    moved = []
    for _ in range(5):
        before = {n: w.clone() for n, w in weights(loop.parts).items()}
        loop.step(lambda: X)
        moved.append(any(not torch.equal(before[n], w) for n, w in weights(loop.parts).items()))
    assert moved == [True, False, False, False, True]
    assert (int(loop.too_large), int(loop.skipped)) == (1, 2)


@pytest.mark.parametrize(
    "call", [f"{VAE},skip=60,clip=30", *(f"{name}:{TINY},ema=0.9" for name in MAPS), "bottom_up:latents=4x2,hidden=8", "ladder_vae:latents=4x2"]
)
def test_a_loop_that_is_loaded_goes_on_with_equal_bits(call):
    loops = [loop_of(call), loop_of(call)]
    for _ in range(2):
        loops[0].step(lambda: X)
    loops[1].load({n: t.clone() for n, t in loops[0].state().items()})
    for loop in loops:
        for _ in range(2):
            loop.step(lambda: X)
    a, b = (loop.state() for loop in loops)
    assert a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)


def test_a_state_of_before_long_gradients_were_counted_still_loads():
    loop = loop_of(VAE)
    state = {n: t for n, t in loop.state().items() if n != "loop.too_large"}
    loop.load(state)
    assert int(loop.too_large) == 0


def test_a_run_that_never_moves_ends_with_the_reason(tmp_path):
    with pytest.raises(VaestroError, match=r"gradients were longer than skip=0.001, so nothing moved; raise skip"):
        vaestro.train("vae:latents=2,hidden=8,skip=0.001", "digits-dynamic", steps=60, out=tmp_path / "run")
    run = vaestro.train("vae:latents=2,hidden=8,skip=1e9", "digits-dynamic", steps=3, out=tmp_path / "other")
    assert run.about["too_large"] == 0 and run.about["keywords"]["skip"] == "1000000000.0"


# a step


@pytest.mark.parametrize("call", [*(f"{name}:{TINY},activations=recomputed" for name in MAPS), "bottom_up:latents=4x2", "ladder_vae:latents=4x2", "vae:skip=1"])
def test_a_step_waits_for_nothing(call):
    # Adamax on a CPU reads its own step count there, which lies in host memory; the kernels of Adam do not
    loop = loop_of(f"{call},optimizer=adam")
    for _ in range(2):
        loop.step(lambda: X)
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        loop.step(lambda: X)
    assert reads(seen)[0] == []


@pytest.mark.parametrize("name", [f"{name}:{TINY}" for name in MAPS])
def test_mixed_precision_trains_with_finite_numbers(name):
    loop = loop_of(f"{name},precision=bfloat16")
    for _ in range(3):
        loop.step(lambda: X)
    assert all(math.isfinite(v) for v in loop.flush().values()) and int(loop.skipped) == 0
    assert all(w.dtype == torch.float32 for w in weights(loop.parts).values())


@pytest.mark.slow
@pytest.mark.parametrize("call", [*(f"{n}:blocks=2x2x1,width=16,latents=4" for n in MAPS), "ladder_vae:latents=16x8", "bottom_up:latents=32x16", "resnet_vae"])
def test_training_on_digits_falls(call, tmp_path):
    run = vaestro.train(call, "digits-dynamic", steps=150, out=tmp_path / "run")
    scores = [line["validation"] for line in run.log() if "validation" in line]
    assert scores[-1] < scores[0] - 1
    assert run.about["skipped"] == run.about["too_large"] == 0
