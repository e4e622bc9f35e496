"""Models as scikit-learn's estimators: fit, transform, predict, in pipelines and searches. Needs scikit-learn."""

from vaestro.errors import UsageError

try:
    from vaestro.estimators.classifier import VAEClassifier
    from vaestro.estimators.clusterer import VAEClusterer
    from vaestro.estimators.density import VAEDensity
    from vaestro.estimators.detector import VAEDetector
    from vaestro.estimators.imputer import VAEImputer
    from vaestro.estimators.transformer import VAETransformer
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "sklearn":
        raise
    raise UsageError("the estimators are scikit-learn's, which is not installed; run `pip install 'vaestro[science]'`") from None

__all__ = ["VAEClassifier", "VAEClusterer", "VAEDensity", "VAEDetector", "VAEImputer", "VAETransformer"]
