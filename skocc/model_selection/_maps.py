"""Heat maps of the detector within a meta-estimator, also at the end of a pipeline."""

from sklearn.pipeline import Pipeline


def last_step(estimator):
    """Return the detector at the end of a pipeline, and other estimators as they are."""
    while isinstance(estimator, Pipeline):
        estimator = estimator.steps[-1][1]
    return estimator


def has_maps(detector) -> bool:
    """Return whether a detector, or the one at the end of a pipeline, has heat maps."""
    return hasattr(last_step(detector), "anomaly_map")


def gives_maps(meta_estimator) -> bool:
    """Return whether the detector of a meta-estimator has heat maps, for `available_if`.

    Parameters
    ----------
    meta_estimator : estimator
        With the detector, or a pipeline that ends with it, as `estimator_` or `estimator`.

    Raises
    ------
    AttributeError
        It has none; the message names the class.
    """
    detector = getattr(meta_estimator, "estimator_", meta_estimator.estimator)
    return callable(last_step(detector).anomaly_map)


def anomaly_map_of(detector, X, **options):
    """Return the heat maps of a fitted detector, or of one at the end of a pipeline.

    Parameters
    ----------
    detector : estimator
        Fitted detector, or pipeline whose steps before the detector return images.
    X : images or paths
    **options
        Of ``anomaly_map`` of the detector, such as ``size`` and ``return_scores``.
    """
    while isinstance(detector, Pipeline):
        if len(detector) > 1:
            X = detector[:-1].transform(X)
        detector = detector[-1]
    return detector.anomaly_map(X, **options)
