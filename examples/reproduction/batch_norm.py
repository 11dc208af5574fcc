"""Statistics for networks whose batch normalization was folded into the weights."""

import numpy as np
import torch
from torch import nn


@torch.no_grad()
def restore_batch_norm(network, images, image_size, batch_size=64):
    """Give batch normalization the statistics of its inputs, and keep the function.

    Files that were quantized have their running means and variances folded into scale and
    shift. In eval mode nothing is lost, but in train mode a layer then divides by the
    deviation of the batch, which is not 1: the network is another one from the first step
    on. Here each layer gets the mean and the variance of its inputs over some images, and
    a scale and shift that make up for them: the function in eval mode is the same, and that
    in train mode is close to it on such images.

    Parameters
    ----------
    network : nn.Module
        Changed in place.
    images : ndarray of shape (n, H, W, C), uint8
    image_size : int
        Side in pixels that they are resized to.
    batch_size : int, default=64

    Returns
    -------
    network : nn.Module
        In eval mode.
    """
    layers = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    sums = {
        layer: torch.zeros(3, layer.num_features, dtype=torch.double) for layer in layers
    }

    def add(layer, args):
        values = args[0].double()
        count = torch.full((layer.num_features,), values[:, 0].numel(), dtype=torch.double)
        axes = (0, 2, 3)
        sums[layer] += torch.stack([count, values.sum(axes), values.square().sum(axes)])

    hooks = [layer.register_forward_pre_hook(add) for layer in layers]
    network.eval()
    for block in np.array_split(images, -(-len(images) // batch_size)):
        batch = torch.from_numpy(block).permute(0, 3, 1, 2).float() / 255
        network(
            nn.functional.interpolate(batch, image_size, mode="bilinear", antialias=True)
        )
    for hook in hooks:
        hook.remove()
    for layer in layers:
        count, total, squares = sums[layer]
        mean = total / count
        var = (squares / count - mean.square()).clamp(min=0)
        scale = layer.weight / (layer.running_var + layer.eps).sqrt()
        shift = layer.bias - scale * layer.running_mean
        layer.running_mean.copy_(mean)
        layer.running_var.copy_(var)
        layer.weight.copy_(scale * (var + layer.eps).sqrt())
        layer.bias.copy_(shift + scale * mean)
    return network
