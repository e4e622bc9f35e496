"""Semi-supervised models: the class of a row is a latent that is sometimes given."""

from functools import singledispatch

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution

from vaestro.core import Batch, Model, Program, Site, centre
from vaestro.errors import UsageError
from vaestro.families.base import Repr, stack
from vaestro.models.base import VAE, data_of
from vaestro.models.conditions import OneHot


class Classes(Repr):
    """One of n classes: `h` [..., n] are logits; log p = h_y - logsumexp(h), in nats. Values are whole numbers 0 .. n-1 without axes of their own."""

    event_dims = 0

    def __init__(self, n: int) -> None:
        self.n = n

    @property
    def params(self) -> int:
        """One logit a class."""
        return self.n

    def __call__(self, h: Tensor) -> Distribution:
        """The distribution whose logits are `h`."""
        return Categorical(logits=stack(h, self.n, 0), validate_args=False)


class EqualClasses(nn.Module):
    """p(y) = 1/n."""

    logits: Tensor

    def __init__(self, n: int) -> None:
        super().__init__()
        self.register_buffer("logits", torch.zeros(n), persistent=False)

    def forward(self) -> Distribution:
        """The distribution, of batch shape ()."""
        return Categorical(logits=self.logits, validate_args=False)


@centre.register
def _(dist: Categorical) -> Tensor:
    return dist.probs  # classes have no middle; their probabilities are what can be drawn on a map


class M2(Model):
    """p(y) p(z) p(x | y, z) with q(y | x) q(z | x, y): the class y is data where it is given, else a latent (Kingma et al. 2014, eq. 2 and 4).

    The site of y is called as the field is. `classifier` is a module of x, `posterior` of x and the one-hot class, `likelihood` of z and the one-hot class.
    """

    def __init__(self, label: str, prior: nn.Module, classifier: nn.Module, posterior: nn.Module, likelihood: nn.Module, classes: int) -> None:
        super().__init__()
        self.label, self.observed = label, ("x", label)
        self.equal, self.code = EqualClasses(classes), OneHot(classes)
        self.prior, self.classifier, self.posterior, self.likelihood = prior, classifier, posterior, likelihood

    def program(self, batch: Batch | None = None) -> Program:
        """y ~ p(y), z ~ p(z), then x ~ p(x | y, z)."""
        x = data_of(batch)
        y = yield Site(self.label, self.equal(), None if x is None else self.classifier(x))
        c = self.code(y)
        z = yield Site("z", self.prior(), None if x is None else self.posterior(x, c))
        yield Site("x", self.likelihood(z, c))


class Stacked(Model):
    """p(y) p(z2) p(z1 | y, z2) p(x | z1): an M2 whose data are the latents z1 of a VAE (Kingma et al. 2014, section 2.1, M1+M2).

    q(z1 | x) is the VAE's; q(y | .) and q(z2 | ., y) read the mean of q(z1 | x), so that every posterior is a function of x and the bound is exact.
    """

    def __init__(self, m1: VAE, m2: M2) -> None:
        super().__init__()
        self.m1, self.m2, self.label, self.observed = m1, m2, m2.label, m2.observed

    def program(self, batch: Batch | None = None) -> Program:
        """y ~ p(y), z2 ~ p(z2), z1 ~ p(z1 | y, z2), then x ~ p(x | z1)."""
        x = data_of(batch)
        q = None if x is None else self.m1.posterior(x)
        h = None if q is None else q.mean
        y = yield Site(self.label, self.m2.equal(), None if h is None else self.m2.classifier(h))
        c = self.m2.code(y)
        z2 = yield Site("z2", self.m2.prior(), None if h is None else self.m2.posterior(h, c))
        z1 = yield Site("z1", self.m2.likelihood(z2, c), q)
        yield Site("x", self.m1.likelihood(z1))


@singledispatch
def classify(model: nn.Module, x: Tensor) -> Distribution:
    """q(y | x), classes as whole numbers, for x [n, *shape]. Open; raises UsageError for a model that has no classes."""
    raise UsageError(f"{type(model).__name__} has no classes to tell apart; train m2 or m1_m2, or embed the rows and train a classifier on that")


@classify.register
def _(model: M2, x: Tensor) -> Distribution:
    return model.classifier(x)  # type: ignore[no-any-return]


@classify.register
def _(model: Stacked, x: Tensor) -> Distribution:
    return model.m2.classifier(model.m1.posterior(x).mean)  # type: ignore[no-any-return]
