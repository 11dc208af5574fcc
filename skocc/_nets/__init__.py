"""Networks: plain ``nn.Module``, shapes in, shapes out.

They know nothing of scikit-learn, NumPy, devices or training.
"""
