"""Base classes and helpers that several estimators share.

They are the base detector, heat maps, parameter constraints, fitted attributes and
versions. Code that a single method needs does not belong here.
"""
