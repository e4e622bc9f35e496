"""Networks at every tested image size, in both directions."""

import pytest
import torch
from torch import nn

from examples import NETWORKS as WIDTHS
from vaestro.errors import UsageError
from vaestro.networks import NETWORKS, Build, convolutional, gated_mlp, mlp, residual
from vaestro.networks.convolutional import Enlarged, norm
from vaestro.testing import check_network

IMAGES = [(1, 28, 28), (3, 32, 32), (3, 64, 64), (3, 100, 37), (1, 8, 8), (1, 1, 1), (2, 1, 5)]


def test_every_network_has_an_example() -> None:
    assert set(WIDTHS) == set(NETWORKS)


@pytest.mark.parametrize("image", IMAGES)
@pytest.mark.parametrize("name", NETWORKS)
def test_network_keeps_its_contract_on_images(name: str, image: tuple[int, int, int]) -> None:
    build, hidden = NETWORKS[name], WIDTHS[name]
    check_network(build, image, (4,), hidden)
    check_network(build, (4,), image, hidden)


@pytest.mark.parametrize("name", ["convolutional", "residual"])
@pytest.mark.parametrize("hidden", [(1,), (3,), (7, 5), (4, 4, 4, 4, 4, 4), (16, 40)])
def test_any_channels_and_depth(name: str, hidden: tuple[int, ...]) -> None:
    for image in ((1, 9, 6), (2, 1, 1)):
        check_network(NETWORKS[name], image, (3,), hidden)
        check_network(NETWORKS[name], (3,), image, hidden)
    check_network(NETWORKS[name], (2, 9, 6), (5, 9, 6), hidden)


@pytest.mark.parametrize(("small", "size"), [((7, 7), (14, 14)), ((1, 1), (2, 2)), ((1, 3), (2, 6)), ((50, 19), (100, 37)), ((1, 1), (1, 1)), ((1, 3), (1, 6))])
@pytest.mark.parametrize("bias", [True, False])
def test_enlarging_is_a_resize_and_a_convolution(small: tuple[int, int], size: tuple[int, int], bias: bool) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 5, 3, padding=1, bias=bias).double()
    plain = nn.Sequential(nn.Upsample(size=size, mode="nearest"), layer)
    x = torch.randn(4, 3, *small, dtype=torch.float64, requires_grad=True)
    weigh = torch.randn(4, 5, *size, dtype=torch.float64)
    found, wanted = Enlarged(layer, size)(x), plain(x)
    assert torch.allclose(found, wanted, rtol=0, atol=1e-12)
    ours, theirs = (torch.autograd.grad((y * weigh).sum(), [x, *layer.parameters()]) for y in (found, wanted))
    assert all(torch.allclose(a, b, rtol=0, atol=1e-11) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("build", [mlp, gated_mlp])
def test_dense_networks_take_any_shapes(build: Build) -> None:
    for inputs, outputs in (((5,), (3,)), ((2, 3), (4,)), ((5,), (2, 3, 3))):
        check_network(build, inputs, outputs, ())
        check_network(build, inputs, outputs, (6,))


def test_mlp_without_hidden_layers_is_linear() -> None:
    net = mlp((4,), (3,), ())
    a, b = torch.randn(2, 4), torch.randn(2, 4)
    assert torch.allclose(net(a + b) + net(torch.zeros(2, 4)), net(a) + net(b), atol=1e-6)
    assert sum(p.numel() for p in net.parameters()) == 15


def test_mlp_keeps_the_variance_of_its_inputs() -> None:
    torch.manual_seed(1)
    out = mlp((400,), (400,), (400, 400), nn.ReLU)(torch.randn(1000, 400))
    assert 0.7 < out.var().item() < 1.4


def test_gate_is_a_product() -> None:
    layer = gated_mlp((4,), (3,), (6,)).body[1]
    x = torch.randn(5, 4)
    assert torch.allclose(layer(x), layer.h(x) / (1 + torch.exp(-layer.g(x))), atol=1e-6)


def test_nothing_is_transposed_or_normalised_over_the_batch() -> None:
    for build in (convolutional, residual):
        kinds = {type(m) for m in build((4,), (3, 10, 10), (8, 4)).modules()}
        assert not kinds & {nn.ConvTranspose2d, nn.BatchNorm2d}


def test_groups_divide_any_channels() -> None:
    for channels in range(1, 130):
        layer = norm(channels, (2, 2))
        assert layer(torch.randn(2, channels, 2, 2)).shape == (2, channels, 2, 2)
        assert isinstance(layer, nn.GroupNorm) and channels % layer.num_groups == 0


def test_a_residual_network_starts_near_its_skeleton() -> None:
    net = residual((4,), (1, 8, 8), (8, 8))
    block = next(m for m in net.modules() if type(m).__name__ == "Block")
    x = torch.randn(6, 8, 8, 8)
    assert (block(x) - x).std() < 0.3 * x.std()


@pytest.mark.parametrize(
    ("inputs", "outputs", "hidden", "words"),
    [((4,), (3,), (8,), "use mlp"), ((1, 8, 8), (1, 9, 8), (8,), "same height"), ((1, 8, 8), (4,), (), "hidden is empty")],
)
def test_misfits_are_refused(inputs: tuple[int, ...], outputs: tuple[int, ...], hidden: tuple[int, ...], words: str) -> None:
    for build in (convolutional, residual):
        with pytest.raises(UsageError, match=words):
            build(inputs, outputs, hidden)
