"""A picture drawn pixel by pixel: a distribution of which every pixel depends on those before it, and on a context."""

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, constraints

from vaestro.core import partial_log_prob
from vaestro.data.schema import Shape
from vaestro.errors import UsageError
from vaestro.families.base import Family, Sizes, single
from vaestro.networks.masked import Hidden, PixelNet
from vaestro.progress import tell


class PixelDistribution(Distribution):
    """p(x) = prod_i p(x_i | x_<i, context) over the numbers of a picture [C, H, W], row by row and channel by channel within a pixel; nats.

    `net` reads the pixels before, `family` (of independent values) reads `net`, and `context` [*batch, K, H, W] is read by every pixel.
    `log_prob` is one pass; a sample is as many as there are numbers, each over the little that the network reaches.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}

    def __init__(self, net: PixelNet, family: Family, context: Tensor, channels: int) -> None:
        self.net, self.family, self.context = net, family, context
        super().__init__(context.shape[:-3], torch.Size((channels, *context.shape[-2:])), validate_args=False)

    def expand(self, batch_shape: Sizes, _instance: Distribution | None = None) -> "PixelDistribution":
        """The same distribution, repeated over `batch_shape`."""
        return PixelDistribution(self.net, self.family, self.context.expand(*batch_shape, *self.context.shape[-3:]), self.event_shape[0])

    def given(self, x: Tensor) -> Distribution:
        """Every p(x_i | x_<i) at the picture `x`, in one pass: independent values once x is known. Shaped as the broadcast of both."""
        lead = torch.broadcast_shapes(x.shape[:-3], self.batch_shape)
        flat = [t.expand(*lead, *t.shape[-3:]).reshape(-1, *t.shape[-3:]) for t in (x.to(self.context.dtype), self.context)]
        h = self.net(*flat)
        return self.family(h.reshape(*lead, *h.shape[1:]))

    def log_prob(self, value: Tensor) -> Tensor:
        """log p of whole pictures, in nats."""
        return self.given(value).log_prob(value)

    def sample(self, sample_shape: Sizes = torch.Size()) -> Tensor:
        """Pictures drawn number by number, each row told to `vaestro.progress`; no gradient."""
        shape = self._extended_shape(torch.Size(sample_shape))
        with torch.no_grad():
            context = self.context.expand(*shape[:-3], *self.context.shape[-3:]).reshape(-1, *self.context.shape[-3:])
            x = context.new_zeros(len(context), *self.event_shape)
            past = [b[:, :, None, : x.shape[3]].expand(-1, -1, self.net.side, -1) for b in self.net.blank(len(x), x.shape[3], x)]
            for row in range(x.shape[2]):
                before = x[:, :, row - 1 : row] if row else torch.zeros_like(x[:, :, :1])
                self._draw_row(x, self.net.next_row(past, before, context[:, :, row : row + 1]), row)
                tell("drawing pixel by pixel", (row + 1) / x.shape[2])
        return x.reshape(shape)

    def _draw_row(self, x: Tensor, told: list[Tensor], row: int) -> None:
        """Fills one row of `x`, which has been told of the rows above."""
        known = self.net.blank(len(x), x.shape[3], x)
        for column in range(x.shape[3]):
            for channel in range(x.shape[1]):
                h = self.net.at(known, told, column)[..., None, None]
                x[:, channel, row, column] = self.family(h).sample()[:, channel, 0, 0]
                known[0][:, channel, self.net.side + column] = x[:, channel, row, column]

    @property
    def mean(self) -> Tensor:
        """An unbiased estimate of the mean, which no closed form gives: the means of the pixels, each given those before it, along one drawn picture."""
        return self.given(self.sample()).mean


@partial_log_prob.register
def _(dist: PixelDistribution, value: Tensor, mask: Tensor) -> Tensor:
    raise UsageError("pixels that are drawn one by one are scored in whole pictures only, not in a part of one; give whole rows, or use a recipe such as vae")


class Pixels(nn.Module):
    """The autoregressive family of pictures: `h` [..., params * C, H, W] is the context that every pixel's conditional reads; nats.

    p(x) = prod_i p(x_i | x_<i, h), each factor of `family`, whose numbers a `PixelNet` with layers of the widths `hidden` predicts (van den Oord et al.
    2016, Conditional Image Generation with PixelCNN Decoders; as a decoder, Gulrajani et al. 2017; Chen et al. 2017).
    It scores whole pictures: no part of one can be integrated out. Raises UsageError for events that are no pictures, and for a family whose values
    are not independent, or that is no density.
    """

    event_dims = 3

    def __init__(self, family: Family, event: Shape, params: int = 8, hidden: Hidden = (32, 32, 32, 32), kernel: int = 5) -> None:
        if len(event) != 3:
            raise UsageError(f"pixels are drawn one by one in pictures [C, H, W] only, and these rows are shaped {event}; use vae for vectors")
        probe = family(torch.zeros(1, family.params * event[0], 1, 1))
        if not (isinstance(probe, Independent) and probe.reinterpreted_batch_ndims == 3):
            raise UsageError(f"pixels cannot be drawn one by one from {family!r}; give a likelihood of independent values that is a density, such as default")
        super().__init__()
        self.family, self.channels, self.params = family, event[0], params
        self.net = PixelNet(event[0], family.params * event[0], event[0], params * event[0], hidden, kernel)

    def forward(self, h: Tensor) -> Distribution:
        """The distribution whose context is `h`; raises UsageError when its channels are not params * C."""
        if h.dim() < 3 or h.shape[-3] != self.params * self.channels:
            raise UsageError(f"pixels need a context of {self.params * self.channels} channels, and this one is shaped {tuple(h.shape)}")
        return PixelDistribution(self.net, self.family, single(h), self.channels)
