"""The engine: batches of tensors, the training loop, the inference loop, devices and seeds.

Nothing here depends on a method, a network or a loss. Code that only one method needs
stays with that method.
"""
