"""Networks: plain ``nn.Module`` classes with documented input and output shapes.

They do not depend on scikit-learn, NumPy, devices or training.
"""
