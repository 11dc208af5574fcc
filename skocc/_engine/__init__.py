"""Moves batches: sources to tensors, the one training loop, the one inference loop.

Nothing here knows a method, a network or a loss. What only one method needs stays with
that method.
"""
