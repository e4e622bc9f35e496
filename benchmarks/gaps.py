"""Gaps cut into tables, and the usual ways of filling them: what imputation.py compares with ours."""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy import optimize, special

SIZES = {"adult": (2000, 300, 400), "hypothyroid": (2531, 316, 316)}  # rows to learn from, to choose by, to fill
Array = np.ndarray


class Task(NamedTuple):
    """Rows with gaps as they are held, and beside them what the gaps of the rows to fill held."""

    table: Any
    fit: Array
    look: Array  # validation rows, complete but for their own gaps
    holes: Array  # which entries of `look` are hidden
    test: Array
    hidden: Array  # which entries of `test` are hidden


def named(table: Any) -> Array:
    """Which columns are categories."""
    from vaestro.data.schema import Named

    return np.array([isinstance(c, Named) for c in table.columns])


def at_random(table: Any, x: Array, share: float, rng: np.random.Generator) -> Array:
    """The same chance for every entry."""
    return np.full(x.shape, share)


def by_others(table: Any, x: Array, share: float, rng: np.random.Generator) -> Array:
    """Chances that depend on a third of the columns without gaps, which stay whole."""
    whole = np.flatnonzero(~np.isnan(x).any(0))
    driving = rng.choice(whole, max(1, len(whole) // 3), replace=False)
    codes = coded(table, x, driving)
    score = (codes - codes.mean(0)) @ rng.normal(size=(codes.shape[1], x.shape[1]))
    score *= 2 / score.std(0)
    shift = [optimize.brentq(lambda b, s=s: special.expit(s + b).mean() - share, -50, 50) for s in score.T]
    chances = special.expit(score + np.array(shift))
    chances[:, driving] = 0
    return chances


MECHANISMS: dict[str, Callable[[Any, Array, float, np.random.Generator], Array]] = {"at random": at_random, "by others": by_others}


def coded(table: Any, x: Array, columns: Array) -> Array:
    """Columns as numbers of like size: standardised, categories one-hot."""
    parts = [one_hot(table, x, i) if named(table)[i] else ((x[:, i] - x[:, i].mean()) / x[:, i].std())[:, None] for i in columns]
    return np.concatenate(parts, 1)


def one_hot(table: Any, x: Array, i: int) -> Array:
    """A column of categories, [rows, levels]; NaN where it was not seen."""
    v = x[:, i, None]
    return np.where(np.isnan(v), np.nan, v == np.arange(len(table.columns[i].levels)))


def task(name: str, mechanism: str, share: float, seed: int) -> Task:
    """The rows of one setting, and their gaps, from its own seed."""
    from vaestro.data import load

    data = load(name)
    table, rng = data.schema["x"].kind, np.random.default_rng([seed, list(SIZES).index(name), list(MECHANISMS).index(mechanism), round(100 * share)])
    parts = [np.array(data.split(s).arrays["x"]) for s in ("train", "validation", "test")]
    parts = [p[np.random.default_rng([seed, i]).permutation(len(p))[:n]] for i, (p, n) in enumerate(zip(parts, SIZES[name], strict=True))]
    x, cuts = np.concatenate(parts), np.cumsum([len(p) for p in parts])[:-1]
    gone = (rng.random(x.shape) < MECHANISMS[mechanism](table, x, share, rng)) & ~np.isnan(x)
    gone[(gone | np.isnan(x)).all(1)] = False  # a row keeps something
    fit, look, test = np.split(x, cuts)
    first, second, third = np.split(gone, cuts)
    return Task(table, np.where(first, np.nan, fit).astype(np.float32), look, second, test, third)


def own(table: Any, x: Array) -> Array:
    """Held rows [..., columns] in the table's own units, categories by their number."""
    from vaestro.data.prepare.columns import unpack

    flat = x.reshape(-1, x.shape[-1])
    made = [v.astype(float) if n else unpack(c, v.astype(float)).cast(float).to_numpy() for c, n, v in zip(table.columns, named(table), flat.T, strict=True)]
    return np.stack(made, 1).reshape(x.shape)


def constants(centre: Callable[..., Array]) -> Callable[[Task, int], Array]:
    """Numbers filled with one centre of their column, categories with the most frequent one."""

    def fill(t: Task, seed: int) -> Array:
        fit, test = own(t.table, t.fit), gaps(t)
        common = [np.nanmean(one_hot(t.table, fit, i), 0).argmax() if n else centre(fit[:, i]) for i, n in enumerate(named(t.table))]
        return np.where(np.isnan(test), np.array(common, float), test)

    return fill


def standard(make: Callable[[int], Any]) -> Callable[[Task, int], Array]:
    """An imputer of scikit-learn on numbers standardised and categories one-hot, of which the largest is taken."""

    def fill(t: Task, seed: int) -> Array:
        fit, test = own(t.table, t.fit), gaps(t)
        names, centre, scale = named(t.table), np.nanmean(fit, 0), spread(t)
        a, b = (
            np.concatenate([one_hot(t.table, x, i) if n else z[:, [i]] for i, n in enumerate(names)], 1)
            for x, z in ((x, (x - centre) / scale) for x in (fit, test))
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # ten rounds do not converge, as its users know
            made = make(seed).fit(a).transform(b)
        widths = [len(c.levels) if n else 1 for c, n in zip(t.table.columns, names, strict=True)]
        blocks = np.split(made, np.cumsum(widths)[:-1], 1)
        columns = [block.argmax(1) if n else block[:, 0] * scale[i] + centre[i] for i, (n, block) in enumerate(zip(names, blocks, strict=True))]
        return np.stack(columns, 1)

    return fill


def numbered(make: Callable[[int], Any]) -> Callable[[Task, int], Array]:
    """An imputer of scikit-learn on numbers and the codes of categories, all standardised; what it says of a category is rounded to the nearest code."""

    def fill(t: Task, seed: int) -> Array:
        fit, test = own(t.table, t.fit), gaps(t)
        centre, scale = np.nanmean(fit, 0), spread(t)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = make(seed).fit((fit - centre) / scale).transform((test - centre) / scale) * scale + centre
        top = [len(c.levels) - 1 if n else np.inf for c, n in zip(t.table.columns, named(t.table), strict=True)]
        return np.where(named(t.table), np.rint(made).clip(0, top), made)

    return fill


def iterative(seed: int) -> Any:
    """scikit-learn's chained equations."""
    from sklearn.experimental import enable_iterative_imputer  # noqa: F401 (importing it allows the next line)
    from sklearn.impute import IterativeImputer

    return IterativeImputer(random_state=seed, keep_empty_features=True)


def neighbours(seed: int) -> Any:
    """scikit-learn's five nearest rows."""
    from sklearn.impute import KNNImputer

    return KNNImputer(keep_empty_features=True)


RIVALS: dict[str, Callable[[Task, int], Array]] = {
    "IterativeImputer, one-hot": standard(iterative),
    "IterativeImputer, codes": numbered(iterative),
    "KNNImputer": standard(neighbours),
    "mean": constants(np.nanmean),
    "median": constants(np.nanmedian),
}


def gaps(t: Task) -> Array:
    """The test rows with their gaps, in the table's own units."""
    return own(t.table, np.where(t.hidden, np.nan, t.test))


def spread(t: Task) -> Array:
    """The standard deviation of the seen training entries of every column, in its own units; 1 where they are all equal."""
    found = np.nanstd(own(t.table, t.fit), 0)
    return np.where(found > 0, found, 1.0)
