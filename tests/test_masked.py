"""Masked convolutions: what each output reads, by gradients; and that no pixel before it is out of sight."""

import pytest
import torch
from torch import Tensor

from vaestro.errors import UsageError
from vaestro.networks.masked import BEFORE, UP_TO, MaskedConv2d, PixelNet, Sees, groups_of

H, W = 4, 5


def reads(net: torch.nn.Module, inputs: int, outputs: int) -> Tensor:
    """Which inputs each output reads, [outputs, H, W, inputs, H, W]: where the gradient is not 0."""
    torch.manual_seed(0)
    x = torch.randn(1, inputs, H, W, dtype=torch.float64, requires_grad=True)
    rows = torch.autograd.functional.jacobian(net.double(), x, vectorize=True)
    return (rows != 0).reshape(outputs, H, W, inputs, H, W)


def allowed(before: list[int], after: list[int], sees: Sees) -> Tensor:
    """What a network with an unbounded reach may read: earlier pixels, and of the same pixel the channels that `sees` admits."""
    place = torch.arange(H * W).reshape(H, W)
    earlier = place[None, None] < place[:, :, None, None]
    same = place[None, None] == place[:, :, None, None]
    pairs = sees(torch.tensor(before)[None], torch.tensor(after)[:, None])[:, None, None, :, None, None]
    return earlier[None, :, :, None] | (same[None, :, :, None] & pairs)


@pytest.mark.parametrize("sees", [BEFORE, UP_TO])
@pytest.mark.parametrize(("before", "after"), [([0], [0, 0]), ([0, 1, 2], [0, 1, 2, 0, 1, 2]), ([1, 0], [0, 1])])
def test_one_masked_layer_reads_what_its_mask_admits(sees: Sees, before: list[int], after: list[int]) -> None:
    layer = MaskedConv2d(before, after, (7, 9), sees)  # a kernel that covers the picture
    assert torch.equal(reads(layer, len(before), len(after)), allowed(before, after, sees))


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("hidden", [(8,), (6, 6), (6, 7, 4, 4, 4)])
def test_a_network_reads_nothing_that_is_not_before(channels: int, hidden: tuple[int, ...]) -> None:
    net = PixelNet(channels, 2 * channels, channels, hidden=hidden, kernel=3)
    groups = groups_of(2 * channels, channels)
    found, may = reads(net, channels, 2 * channels), allowed(groups_of(channels, channels), groups, BEFORE)
    assert not (found & ~may).any()


@pytest.mark.parametrize("channels", [1, 3])
def test_a_deep_network_reads_all_that_is_before_without_a_blind_spot(channels: int) -> None:
    net = PixelNet(channels, channels, channels, hidden=(6,) * 6, kernel=3)
    assert torch.equal(reads(net, channels, channels), allowed(groups_of(channels, channels), groups_of(channels, channels), BEFORE))


def test_codes_with_embeddings_are_one_group() -> None:
    net = PixelNet(4, 7, hidden=(6,) * 6, kernel=3)
    assert torch.equal(reads(net, 4, 7), allowed([0] * 4, [0] * 7, BEFORE))


def test_the_context_of_a_pixel_reaches_it_and_those_after_it() -> None:
    net = PixelNet(1, 1, 1, context=2, hidden=(6,) * 5, kernel=3).double()
    x, context = torch.randn(1, 1, H, W, dtype=torch.float64), torch.randn(1, 2, H, W, dtype=torch.float64)
    rows = torch.autograd.functional.jacobian(lambda c: net(x, c), context, vectorize=True).reshape(H, W, 2, H, W)
    assert (rows[range(H), :, :, range(H)].diagonal(dim1=1, dim2=3) != 0).all()  # its own context


def test_row_by_row_is_the_one_pass() -> None:
    net = PixelNet(3, 6, 3, context=4, hidden=(8, 8), kernel=5).double()
    x, context = torch.randn(2, 3, H, W, dtype=torch.float64), torch.randn(2, 4, H, W, dtype=torch.float64)
    whole = net(x, context)
    for r in range(H):
        known = torch.where(torch.arange(H)[:, None] < r, x, 0.0)
        told = [t[:, :, r : r + 1] for t in net.above(known, context)]
        assert torch.allclose(net.along(x[:, :, r : r + 1], told), whole[:, :, r : r + 1], atol=1e-12)


@torch.no_grad()
def test_pixel_by_pixel_is_the_one_pass() -> None:
    net = PixelNet(3, 6, 3, context=4, hidden=(8, 8, 7), kernel=5).double()
    x, context = torch.randn(2, 3, H, W, dtype=torch.float64), torch.randn(2, 4, H, W, dtype=torch.float64)
    whole, told = net(x, context), net.above(x, context)
    past = [torch.zeros(2, c, 2, W, dtype=torch.float64) for c in (3, 8, 8)]
    for r in range(H):
        mine = net.next_row(past, x[:, :, r - 1 : r] if r else torch.zeros_like(x[:, :, :1]), context[:, :, r : r + 1])
        assert all(torch.allclose(a, b[:, :, r : r + 1], atol=1e-12) for a, b in zip(mine, told, strict=True))
        row = net.blank(2, W, x)
        for c in range(W):
            for channel in range(3):  # the outputs of a channel are due before its input is known
                found = net.at(row, [t[:, :, r : r + 1] for t in told], c)
                assert torch.allclose(found[:, channel::3], whole[:, channel::3, r, c], atol=1e-12)
                row[0][:, channel, net.side + c] = x[:, channel, r, c]


def test_every_weight_that_is_not_masked_gets_a_gradient() -> None:
    net = PixelNet(2, 4, 2, context=3, hidden=(6, 6), kernel=3)
    net(torch.randn(3, 2, H, W), torch.randn(3, 3, H, W)).square().sum().backward()
    for name, layer in net.named_modules():
        if isinstance(layer, MaskedConv2d):
            assert layer.weight.grad is not None and torch.equal(layer.weight.grad != 0, layer.mask != 0), name
    assert all(p.grad is not None and (p.grad != 0).any() for p in net.parameters())


def test_a_network_keeps_the_size_of_its_inputs() -> None:
    torch.manual_seed(0)
    out = PixelNet(1, 8, 1, hidden=(64,) * 4)(torch.randn(20, 1, 12, 12))
    assert 0.05 < out.std() < 2


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: MaskedConv2d([0], [0], (2, 3), BEFORE), "odd sides"),
        (lambda: PixelNet(1, 1, kernel=4), "odd sides"),
        (lambda: PixelNet(3, 3, 3, hidden=(2,)), "at least as wide"),
        (lambda: PixelNet(1, 1, hidden=()), "hidden is empty"),
    ],
)
def test_misfits_are_refused(make: object, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        make()  # type: ignore[operator]
