"""What autoencoders are charged for beside their error: steep maps, large codes, codes that are always on."""

import math
from collections.abc import Callable
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from vaestro.core import Trace, centre
from vaestro.errors import UsageError
from vaestro.registry import Registry

Norm: TypeAlias = Callable[[Tensor, Tensor, int], Tensor]  # (outputs, the inputs that they were made of row by row, how many axes lead) to a number a row
NORMS: Registry[Norm] = Registry("norm of a Jacobian")


def exact(outputs: Tensor, inputs: Tensor, lead: int = 1) -> Tensor:
    """|J|_F^2 = sum_ij (d output_i / d input_j)^2 of each row, with its own gradient: as many passes as there are outputs, or inputs if these are fewer.

    `outputs` [*rows, ...] and `inputs` [*rows, ...] have `lead` axes of rows in common; the outputs of a row may depend on that row's inputs only. Raises
    RuntimeError where the outputs were not made of the inputs with a gradient.
    """
    y = outputs.flatten(lead)
    if y.shape[-1] <= inputs.flatten(lead).shape[-1]:
        rows = (_grad(column.sum(), inputs) for column in y.unbind(-1))
        return torch.stack([g.square().flatten(lead).sum(-1) for g in rows]).sum(0)
    u = torch.zeros_like(y, requires_grad=True)
    pulled = _grad((u * y).sum(), inputs).flatten(lead)  # J' u, linear in u: its derivatives by u are the columns of J
    columns = (_grad(one.sum(), u) for one in pulled.unbind(-1))
    return torch.stack([g.square().sum(-1) for g in columns]).sum(0)


def hutchinson(draws: int = 1) -> Norm:
    """An unbiased estimate of `exact` in `draws` passes: |J' v|^2 with v of random signs, for E[v v'] = I (Hutchinson 1990).

    Raises UsageError for fewer than one draw.
    """
    if draws < 1:
        raise UsageError(f"a norm cannot be estimated from {draws} draws; give one or more")

    def estimated(outputs: Tensor, inputs: Tensor, lead: int = 1) -> Tensor:
        signs = (torch.randint(2, outputs.shape, device=outputs.device).to(outputs.dtype) * 2 - 1 for _ in range(draws))
        return torch.stack([_grad((v * outputs).sum(), inputs).square().flatten(lead).sum(-1) for v in signs]).mean(0)

    return estimated


def _grad(total: Tensor, inputs: Tensor) -> Tensor:
    return torch.autograd.grad(total, inputs, create_graph=True)[0]


NORMS.add("exact", exact)
NORMS.add("estimated", hutchinson())


def codes(trace: Trace) -> Float[Tensor, "b d"]:
    """The centre of every latent site's posterior, side by side; below other latents, given the first draw of these."""
    found = []
    for d in trace.latents.values():
        assert d.posterior is not None, "a latent site has a posterior"
        middle = centre(d.posterior)
        middle = middle if len(d.posterior.batch_shape) == 1 else middle[0]
        found.append(middle.flatten(1))
    return torch.cat(found, 1)


def squared_codes(trace: Trace) -> Float[Tensor, " b"]:
    """|z|^2 / 2 of all latents, averaged over the draws: minus log N(z; 0, I) without its constant (Ghosh et al. 2020, eq. 9)."""
    sizes = [d.value.square().flatten(2).sum(-1) / 2 for d in trace.latents.values()]
    return torch.stack(sizes).sum(0).mean(0)


def absolute_codes(trace: Trace) -> Float[Tensor, " b"]:
    """|z|_1 of all latents, averaged over the draws: minus a Laplace density's log without its constant (Olshausen & Field 1997)."""
    sizes = [d.value.abs().flatten(2).sum(-1) for d in trace.latents.values()]
    return torch.stack(sizes).sum(0).mean(0)


def rarely_on(target: float) -> Callable[[Trace], Float[Tensor, ""]]:
    """sum_j KL(Bernoulli(target) || Bernoulli(m_j)) of the mean activation m_j of latent j over the batch, all latents in (0, 1): nats, one number [].

    Lee, Ekanadham & Ng 2008 use the square of m_j - target in its place; this form is Ng 2011, CS294A lecture notes, section 3, "Autoencoders and sparsity".
    0 where each latent is on for a share `target` of the rows. Raises UsageError for a target outside (0, 1).
    """
    if not 0 < target < 1:
        raise UsageError(f"latents cannot be on for a share {target} of the rows; give a target between 0 and 1")

    def charge(trace: Trace) -> Float[Tensor, ""]:
        z = torch.cat([d.value.flatten(2) for d in trace.latents.values()], -1)
        edge = torch.finfo(z.dtype).tiny
        on, off = z.mean((0, 1)).clamp(min=edge), (1 - z).mean((0, 1)).clamp(min=edge)
        return (target * (math.log(target) - on.log()) + (1 - target) * (math.log1p(-target) - off.log())).sum()  # the slope of a quotient would overflow

    return charge


def decoder_slope(norm: Norm, site: str = "x") -> Callable[[Trace], Float[Tensor, " b"]]:
    """|d E[x | z] / d z|_F^2 of each row, all latents together, averaged over the draws (Ghosh et al. 2020, section 3.1, RAE-GP).

    Raises UsageError where no latent was drawn with a gradient.
    """

    def charge(trace: Trace) -> Float[Tensor, " b"]:
        latents = [d.value for d in trace.latents.values() if d.value.requires_grad]
        if not latents:
            raise UsageError("the slope of a decoder is taken by its latents, and these were drawn without a gradient; use an encoder that is being trained")
        x = centre(trace[site].prior)
        return torch.stack([norm(x, z, 2) for z in latents]).sum(0).mean(0)

    return charge
