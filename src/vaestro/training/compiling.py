"""Compiling a model's call: one graph of fused kernels in place of many small ones, and on CUDA one launch for all of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch

from vaestro.core import Model
from vaestro.errors import VaestroError
from vaestro.evaluation.scope import device_of, evaluating
from vaestro.seeds import forked
from vaestro.training.loop import Fetch


@cache
def require_compiler(device: torch.device) -> None:
    """Compile a line of arithmetic for `device`. Raises VaestroError where the machine cannot, with what it lacks."""
    try:
        torch.compile(lambda x: x.sin() + 1)(torch.zeros(2, device=device))
    except RuntimeError as error:  # no compiler for C++, no Triton, or a Python that torch does not compile yet
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        needs = "a C++ compiler such as g++" if device.type == "cpu" else "Triton and a C compiler"
        raise VaestroError(f"this machine cannot compile models: {reason}; install {needs}, or leave --compile out") from None


def compile_model(model: Model, fetch: Fetch) -> None:
    """From now on `model(batch, k)` runs compiled, from its first call on; numbers differ from the uncompiled ones by rounding alone.

    Draws come from the same generators as ever. On CUDA the kernels are recorded as a graph. Raises VaestroError where the machine cannot compile.
    """
    device = device_of(model)
    require_compiler(device)
    with forked(device), evaluating(model):
        model(fetch())  # the open functions look up each type once: the compiler follows what they found, but not how they look
    model.compile(dynamic=False, options={"fallback_random": True, "triton.cudagraphs": device.type == "cuda"})


@contextmanager
def uncompiled() -> Iterator[None]:
    """A scope in which compiled models run uncompiled: for rows in other numbers, which would each be compiled anew."""
    with torch.compiler.set_stance("force_eager"):
        yield
