"""Fitted detectors as graphs for other runtimes, and the comparison of both."""
