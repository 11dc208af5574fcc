"""Fitted estimators as files that contain only data: `save` and `load`."""
