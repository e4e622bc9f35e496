"""A VAE on the latents of a VAE."""

from vaestro.core import Batch, Model, Program, Site
from vaestro.models.base import VAE, data_of


class TwoStage(Model):
    """p(u) p(z | u) p(x | z): the data of the second VAE, `m2`, are the latents z of the first, `m1` (Dai & Wipf 2019, section 4).

    q(z | x) is the first one's; q(u | .) reads its mean, so that every posterior is a function of x and log p(x) is bounded exactly. The prior of the first
    VAE is only what it was trained under.
    """

    def __init__(self, m1: VAE, m2: VAE) -> None:
        super().__init__()
        self.m1, self.m2 = m1, m2

    def program(self, batch: Batch | None = None) -> Program:
        """u ~ p(u), z ~ p(z | u), then x ~ p(x | z)."""
        x = data_of(batch)
        q = None if x is None else self.m1.posterior(x)
        u = yield Site("u", self.m2.prior(), None if q is None else self.m2.posterior(q.mean))
        z = yield Site("z", self.m2.likelihood(u), q)
        yield Site("x", self.m1.likelihood(z))
