"""Pure functions of tensors: losses, distances, maps, nearest neighbors, the memory bank.

Nothing here loops over batches, or knows an estimator.
"""
