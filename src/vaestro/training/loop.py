"""One step of training for any recipe: players move in turn, each on its own loss. Nothing here waits for the device."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn

from vaestro.core import Batch, observe
from vaestro.errors import UsageError
from vaestro.memory import keep_freed_memory
from vaestro.plays import Clock, Move
from vaestro.recipes import Recipe
from vaestro.registry import says
from vaestro.seeds import mix, reseed

Fetch = Callable[[], Batch]


def weights(parts: nn.Module) -> dict[str, Tensor]:
    """Every parameter and saved buffer by name, a shared one once."""
    saved = parts.state_dict(keep_vars=True)
    named = {n: p for n, p in [*parts.named_parameters(), *parts.named_buffers()] if n in saved}
    return {n: t.detach() for n, t in named.items()}


def owned(recipe: Recipe) -> dict[str, dict[str, nn.Parameter]]:
    """Each player's trainable parameters by name; raises UsageError if one has no owner or two, or a player has none."""
    owners: dict[str, dict[str, nn.Parameter]] = {player: {} for player in recipe.players}
    for name, parameter in recipe.parts.named_parameters():
        mine = [player for player, prefixes in recipe.players.items() if any(name == p or name.startswith(p + ".") for p in prefixes)]
        if len(mine) != 1 and parameter.requires_grad:
            raise UsageError(f"parameter {name!r} belongs to {' and '.join(mine) or 'no player'}; give it to exactly one by the prefixes in Recipe.players")
        if parameter.requires_grad:
            owners[mine[0]][name] = parameter
    idle = [player for player, parameters in owners.items() if not parameters]
    if idle:
        raise UsageError(f"player {idle[0]!r} owns no trainable parameter; name its part in Recipe.players, or leave the player out")
    return owners


def norm_of(gradients: list[Tensor]) -> Tensor:
    """The norm of all gradients together: torch's `get_total_norm` without its sorting by device."""
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients))) if gradients else torch.tensor(0.0)


class Loop:
    """The state of a training run between two steps, and `step`, which moves it on by one.

    A step is a pure function of (seed, step number, state): a run that is stopped anywhere and loaded again ends with equal bits.
    """

    def __init__(self, recipe: Recipe, seed: int, total: int, device: torch.device) -> None:
        keep_freed_memory()
        self.recipe, self.seed, self.total, self.device = recipe, seed, total, device
        self.parts = recipe.parts.to(device).train()
        self.owned = owned(recipe)
        self.watching = [m for m in self.parts.modules() if says(observe, m)]
        settings = recipe.training
        self.optimizers = {player: settings.optimizer(list(ps.values()), settings.learning_rate) for player, ps in self.owned.items()}
        self.average = {n: w.clone() for n, w in weights(self.parts).items()} if settings.ema else {}
        self.n = 0
        self.skipped = torch.zeros((), device=device)  # moves whose gradient was not finite
        self.too_large = torch.zeros((), device=device)  # moves whose gradient was finite, and longer than `skip` admits
        self.sums: dict[str, Tensor | float] = {}
        self.times: dict[str, int] = {}  # how often each term was summed: a player may move several times a step
        self.counted = 0

    def step(self, fetch: Fetch) -> None:
        """Fetch a batch and let every player move once or more, in the play's order."""
        reseed(mix(self.seed, self.n), self.device)
        batch = fetch()
        clock = Clock(self.n, self.total)
        precision = self.recipe.training.precision
        moves = self.recipe.play(self.parts, batch, clock)
        while True:
            with nullcontext() if precision == torch.float32 else torch.autocast(self.device.type, precision):  # anew for each move: its cache hides a step
                move = next(moves, None)
            if move is None:
                break
            self.move(move, clock)
        self._averaged()
        self.n += 1
        self.counted += 1

    def move(self, move: Move, clock: Clock) -> None:
        """One player follows the gradient of its own loss; one that is not finite, or longer than `skip` admits, moves nothing and is counted."""
        optimizer, parameters = self.optimizers[move.player], list(self.owned[move.player].values())
        settings = self.recipe.training
        loss = move.loss.float().mean()
        for parameter in parameters:
            parameter.grad = None
        loss.backward(inputs=parameters)
        norm = norm_of([p.grad for p in parameters if p.grad is not None])
        bad = norm.isfinite().logical_not().float()
        large = torch.zeros_like(bad) if settings.skip is None else (norm > settings.skip).float() * (1 - bad)
        still = bad + large
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * settings.rate(clock.progress)
        shrink = None if settings.clip is None else (norm / settings.clip).clamp(min=1.0)
        if optimizer.defaults.get("fused"):  # these read the two tensors inside their kernel, so nothing waits
            optimizer.found_inf, optimizer.grad_scale = still, shrink  # type: ignore[attr-defined]
            optimizer.step()
        elif not still:
            if shrink is not None:
                torch._foreach_div_([p.grad for p in parameters if p.grad is not None], shrink)
            optimizer.step()
        self.skipped += bad
        self.too_large += large
        self._count(move, loss.detach(), norm)
        if move.trace is not None:
            for part in self.watching:
                observe(part, move.trace)

    def _count(self, move: Move, loss: Tensor, norm: Tensor) -> None:
        name = "loss" if len(self.owned) == 1 else f"loss_{move.player}"
        for term, value in {name: loss, **move.terms, f"gradient_{move.player}": norm}.items():
            self.sums[term] = self.sums.get(term, 0.0) + value
            self.times[term] = self.times.get(term, 0) + 1

    @torch.no_grad()
    def _averaged(self) -> None:
        decay = self.recipe.training.ema
        if not decay:
            return
        now = weights(self.parts)
        moving = [n for n, w in now.items() if w.is_floating_point()]
        decay = min(decay, (1 + self.n) / (10 + self.n))  # a short memory at first, so that the start is forgotten
        torch._foreach_lerp_([self.average[n] for n in moving], [now[n] for n in moving], 1 - decay)
        for n in now.keys() - set(moving):
            self.average[n].copy_(now[n])

    def restart_average(self) -> None:
        """Let the averaged weights start from the present ones."""
        self.average = {n: w.clone() for n, w in weights(self.parts).items()} if self.average else {}

    @contextmanager
    @torch.no_grad()
    def averaged(self) -> Iterator[None]:
        """The averaged weights in place of the trained ones, for as long as the context lasts."""
        now = {n: w.clone() for n, w in weights(self.parts).items()} if self.average else {}
        for n, w in weights(self.parts).items() if now else ():
            w.copy_(self.average[n])
        try:
            yield
        finally:
            for n, w in weights(self.parts).items() if now else ():
                w.copy_(now[n])

    def flush(self) -> dict[str, float]:
        """The mean of every term since the last call: the only place that waits for the device."""
        means = {term: float(total) / self.times[term] for term, total in self.sums.items()}
        self.sums, self.times, self.counted = {}, {}, 0
        return means

    def best(self) -> dict[str, Tensor]:
        """The weights that are evaluated: the averaged ones where the recipe keeps an average."""
        return self.average or weights(self.parts)

    def state(self) -> dict[str, Tensor]:
        """All that the next step depends on, by name; optimiser state goes by parameter name."""
        tensors = {f"weights.{n}": w for n, w in weights(self.parts).items()} | {f"average.{n}": w for n, w in self.average.items()}
        for player, optimizer in self.optimizers.items():
            for name, parameter in self.owned[player].items():
                for key, value in optimizer.state.get(parameter, {}).items():
                    tensors[f"optimizer.{player}.{name}.{key}"] = torch.as_tensor(value)
        return {**tensors, "loop.n": torch.tensor(self.n), "loop.skipped": self.skipped, "loop.too_large": self.too_large}

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Return to a stored state; raises KeyError or RuntimeError where names or shapes are others'."""
        for n, w in weights(self.parts).items():
            w.copy_(tensors[f"weights.{n}"])
        for n, w in self.average.items():
            w.copy_(tensors[f"average.{n}"])
        for player, optimizer in self.optimizers.items():
            for name, parameter in self.owned[player].items():
                prefix = f"optimizer.{player}.{name}."
                own = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
                optimizer.state[parameter] = {k: v.clone() if k == "step" else v.to(parameter.device, copy=True) for k, v in own.items()}
        self.n = int(tensors["loop.n"])
        self.skipped = tensors["loop.skipped"].to(self.device, copy=True)
        self.too_large = tensors.get("loop.too_large", torch.zeros(())).to(self.device, copy=True)  # runs of before it was counted have none
