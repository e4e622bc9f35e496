"""Masked dense networks: what each output sees, by gradients."""

import pytest
import torch

from vaestro.networks import Made


@pytest.mark.parametrize("features", [1, 2, 5])
@pytest.mark.parametrize("context", [0, 2])
@pytest.mark.parametrize("hidden", [(), (7,), (16, 16)])
def test_outputs_see_the_features_before_them_and_the_context(features: int, context: int, hidden: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    for order in (torch.arange(features), torch.arange(features).flip(0), torch.randperm(features)):
        net = Made(features, 3, hidden, context, order).double()
        x = torch.randn(features + context, dtype=torch.float64)
        assert net(x.expand(4, 2, -1)).shape == (4, 2, features, 3)
        reach = torch.autograd.functional.jacobian(net, x).abs().sum(1)  # [features, features + context]
        before = order.unsqueeze(1) > order
        assert bool((reach[:, :features][~before] == 0).all())
        if hidden != (7,) or features < 5:  # seven units are too few for every pair of five features
            assert bool((reach[:, :features][before] > 0).all()) and bool((reach[:, features:] > 0).all())
        net(torch.randn(9, features + context, dtype=torch.float64)).square().sum().backward()
        assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in net.parameters())


def test_outputs_start_as_large_for_the_first_as_for_the_last_feature() -> None:
    torch.manual_seed(0)
    spread = torch.stack([Made(20, 1, (200,))(torch.randn(50, 20)).squeeze(-1) for _ in range(20)]).flatten(0, 1).std(0)
    assert bool((spread[2:] / spread[2:].mean() - 1).abs().max() < 0.5)
