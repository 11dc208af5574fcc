"""What comes from the user: X as image sources, labels, arguments, and warnings about them.

No torch, and nothing else of skocc.
"""
