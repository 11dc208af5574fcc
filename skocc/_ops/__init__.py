"""Functions of tensors: losses, distances, maps, nearest neighbors and the memory bank.

Nothing here trains a network or depends on an estimator.
"""
