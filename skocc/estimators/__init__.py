"""One file per method: parameters, fit, scores, fitted attributes.

No network, no loop over batches and no formula lives here, and no estimator imports
another.
"""
