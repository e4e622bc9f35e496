"""scikit-learn's own contract: every check of `check_estimator` on every estimator, with tiny budgets."""

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from vaestro.estimators import VAEClassifier, VAEClusterer, VAEDensity, VAEDetector, VAEImputer, VAETransformer

TINY = [
    VAETransformer("vae:hidden=8", steps=3),
    VAEDensity("vae:hidden=8", latents=2, steps=3, samples=4),
    VAEDetector("vae:hidden=8", latents=2, steps=3, samples=4),
    VAEClusterer(3, recipe="vamp:hidden=32,learning_rate=0.02", latents=2, steps=30),
    VAEImputer("vae:hidden=8", latents=2, steps=3, draws=3, samples=5),
    VAEClassifier("m2:hidden=16,width=8,learning_rate=0.05", latents=2, steps=20),
]


def cannot_hold(estimator):
    """The checks that an estimator fails, each with its reason: one in all."""
    if isinstance(estimator, VAEClassifier):
        return {
            "check_classifiers_classes": "it names a class -1, which is an unknown one here; scikit-learn exempts its own semi-supervised classifiers by name"
        }
    return {}


@pytest.mark.filterwarnings("ignore::vaestro.errors.Caveat")  # few rows cannot be calibrated
@parametrize_with_checks(TINY, expected_failed_checks=cannot_hold)
def test_an_estimator_keeps_the_contract(estimator, check):
    check(estimator)


def test_only_one_check_is_excused():
    assert sum(len(cannot_hold(estimator)) for estimator in TINY) == 1
