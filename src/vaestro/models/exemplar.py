"""The VAE whose prior is made of the encodings of other rows."""

from vaestro.core import Batch, Program, Site
from vaestro.models.base import VAE, data_of
from vaestro.priors import Exemplar


class ExemplarVAE(VAE):
    """A VAE with an `Exemplar` prior (Norouzi, Fleet & Norouzi 2020): in training each row's prior is made of the other rows of its batch.

    Outside training, and in training on a single row, it is the mixture over the saved exemplars: there a row's score depends on that row alone.
    """

    def program(self, batch: Batch | None = None) -> Program:
        """z ~ p(z), then x ~ p(x | z)."""
        x = data_of(batch)
        q = None if x is None else self.posterior(x)
        others = self.training and isinstance(self.prior, Exemplar)
        z = yield Site("z", self.prior(q) if others else self.prior(), q)
        yield Site("x", self.likelihood(z))
