"""What estimators are made of: the base detector, thresholds, heat maps, constraints.

What a single method needs does not belong here.
"""
