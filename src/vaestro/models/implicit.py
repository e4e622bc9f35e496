"""A generator without an encoder: it samples, and that is all."""

from torch import nn

from vaestro.core import Batch, Model, Program, Site


class Implicit(Model):
    """z ~ p(z), x = G(z): what a GAN trains (Goodfellow et al. 2014; implicit models: Mohamed & Lakshminarayanan 2016).

    `prior` is a module without arguments, `likelihood` a module of z; both return distributions. There is no posterior: a run on rows dreams beside them,
    and where the likelihood is a `Point` the trace is not `normalised`.
    """

    def __init__(self, prior: nn.Module, likelihood: nn.Module) -> None:
        super().__init__()
        self.prior, self.likelihood = prior, likelihood

    def program(self, batch: Batch | None = None) -> Program:
        """z ~ p(z), then x = G(z)."""
        z = yield Site("z", self.prior())
        yield Site("x", self.likelihood(z))
