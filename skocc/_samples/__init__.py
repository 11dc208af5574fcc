"""User input: X as image sources, labels, arguments, and warnings about them.

This folder imports neither torch nor any other part of skocc.
"""
