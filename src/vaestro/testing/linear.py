"""The linear-Gaussian model x = W z + noise, of which every bound has a closed form."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal

from vaestro.models import VAE


class Law(nn.Module):
    """A function that returns a distribution, as a module."""

    def __init__(self, law: Callable[..., Distribution]) -> None:
        super().__init__()
        self.law = law

    def forward(self, *context: Tensor) -> Distribution:
        """The law of the contexts."""
        return self.law(*context)


class LinearGaussian:
    """z ~ N(0, I), x ~ N(W z, noise^2 I), in float64: `evidence` is the exact p(x) = N(0, W W' + noise^2 I) (Tipping & Bishop 1999, eq. 5).

    `right` is the VAE with the true posterior N(S W' x / noise^2, S), S = (I + W' W / noise^2)^-1; `wrong` one whose posterior is off and too wide.
    """

    def __init__(self, features: int = 5, latents: int = 2, noise: float = 0.3) -> None:
        r = torch.Generator().manual_seed(3)
        self.W = torch.randn(features, latents, generator=r, dtype=torch.float64)
        eye = torch.eye(latents, dtype=torch.float64)
        self.noise = noise
        covariance = self.W @ self.W.T + noise**2 * torch.eye(features, dtype=torch.float64)
        self.evidence = MultivariateNormal(torch.zeros(features, dtype=torch.float64), covariance)
        self.S = torch.linalg.inv(eye + self.W.T @ self.W / noise**2)
        self.prior = Law(lambda: MultivariateNormal(torch.zeros(latents, dtype=torch.float64), eye))
        self.likelihood = Law(lambda z: Independent(Normal(z @ self.W.T, noise), 1))
        self.right = self.model(0.0, 1.0)
        self.wrong = self.model(0.2, 2.0)

    def model(self, shift: float, widen: float) -> VAE:
        """The VAE whose posterior is the true one moved by `shift` and with `widen` times its covariance."""
        return VAE(self.prior, Law(lambda x: MultivariateNormal(x @ self.W @ self.S / self.noise**2 + shift, widen * self.S)), self.likelihood)

    def elbo(self, x: Tensor, shift: float, widen: float) -> Tensor:
        """log p(x) - KL(q || p(z | x)) of `model(shift, widen)`, exactly: [b], nats."""
        d = len(self.S)
        gap = torch.full((d,), shift, dtype=torch.float64)
        kl = 0.5 * (widen * d - d - d * torch.tensor(widen).log() + gap @ torch.linalg.solve(self.S, gap))
        exact: Tensor = self.evidence.log_prob(x) - kl
        return exact
