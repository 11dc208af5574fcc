"""Conversion of model files of earlier versions to the format of this version.

The table ``RENAMED`` lists the names that have changed. This file makes the changes that
such a table cannot express.
"""

from skocc._base.renamed import current_names

# In formats 1 and 2, of skocc 0.1, the vectors and image numbers of a memory bank were
# separate attributes, and one class handled both images and videos.
_BANKS = {
    "ResNetKNN": {"bank_": ("bank_", "_bank_images")},
    "PatchSVDD": {
        "bank_small_": ("bank_small_", "_bank_images_small"),
        "bank_big_": ("bank_big_", "_bank_images_big"),
    },
}
_REBUILT = ("_index", "_indices")
_OF_VIDEOS = ("clip_length", "clip_stride", "n_clips", "reconstruction_weight")
_OF_IMAGES = (
    "architecture", "widths", "patch_size", "n_crops", "filter_init", "pretrain_n_epochs",
    "pretrain_learning_rate", "pretrain_weight_decay", "pretrain_milestones",
)  # fmt: skip
# What was two parameters of DataSplitOCC, by the value of its former `batch_norm`. The
# first files have none, and networks without BatchNorm.
_BATCH_NORMS = {None: "auto", True: "train", False: "none"}
# As many pixels a side from which on "auto" was the residual encoder.
_RESIDUAL_SIZE = 64


def current_form(header, arrays):
    """Return header and arrays of a file as this version would have written them.

    Parameters
    ----------
    header : dict
        Header of a complete file; its content is not trusted.
    arrays : dict of str to ndarray
        The arrays of the file.

    Returns
    -------
    header, arrays : dict
        New dictionaries; the arrays are not copied.

    Raises
    ------
    Exception
        The header lacks entries that every file has. The error can be of any kind.
    """
    name, params, values = header["estimator"], header["params"], header["values"]
    params, values, arrays = dict(params), dict(values), dict(arrays)
    if name == "MOCCA":
        name = _split_mocca(params, values)
    if name == "ResNetKNN" and params.get("aggregation", "min") == "min":
        params["n_neighbors"] = 1
    if name in _BANKS and "_digests" in arrays:
        for index in _REBUILT:
            values.pop(index, None)
        digests = arrays.pop("_digests")
        for bank, (vectors, images) in _BANKS[name].items():
            arrays[f"{bank}/vectors"] = arrays.pop(vectors)
            arrays[f"{bank}/images"] = arrays.pop(images)
            arrays[f"{bank}/digests"] = digests
    if name == "DataSplitOCC":
        _merge_parameters(params, values, arrays)
    header = {
        **header,
        "estimator": name,
        "params": current_names(name, params),
        "values": current_names(name, values),
    }
    return header, _current_groups(name, arrays)


def _merge_parameters(params, values, arrays):
    """Write four parameters of DataSplitOCC as two, in place, under their old names."""
    batch_norm, is_frozen = params.pop("batch_norm", False), params.pop("freeze_bn", True)
    if params["backbone"] is None:
        params["batch_norm"] = _BATCH_NORMS[batch_norm]
    else:
        params["batch_norm"] = "frozen" if is_frozen else "train"
    is_rows = len(values["image_shape_"]["tuple"]) == 1
    is_map = params.pop("spatial_code", False) and not is_rows
    if "code_size_" not in values:
        values["code_size_"] = _code_size(arrays)
        # Files without it are of other defaults.
        params["code_size"] = values["code_size_"] or params["code_size"]
    if is_map:
        params["code_size"] = "map"


def _code_size(arrays):
    """Return the size of the code of an autoencoder, None where there is none."""
    start, end = "autoencoder_/encoder.", ".weight"
    layers = {
        int(key.removeprefix(start).removesuffix(end)): array
        for key, array in arrays.items()
        if key.startswith(start) and key.endswith(end)
    }
    return len(layers[max(layers)]) if layers else None


def _current_groups(name, arrays):
    """Return arrays with the current names of the attributes that they are parts of."""
    groups = {}
    for key, array in arrays.items():
        group, slash, entry = key.partition("/")
        groups.setdefault(group, {})[slash + entry] = array
    return {
        group + rest: array
        for group, parts in current_names(name, groups).items()
        for rest, array in parts.items()
    }


def _split_mocca(params, values):
    """Change the entries of a MOCCA of 0.1; return the class it has become."""
    shape = values["image_shape_"]["tuple"]
    is_video = len(shape) == 4
    selectors, freeze_bn = params.pop("selectors", True), params.pop("freeze_bn", False)
    for other in _OF_IMAGES if is_video else _OF_VIDEOS:
        params.pop(other, None)
    if is_video:
        values.pop("pretrain_loss_curve_", None)
        if params.get("normalization") == "auto":
            params["normalization"] = None
        return "VideoMOCCA"
    params["batch_norm"] = "frozen" if freeze_bn else "train"
    if not selectors and _was_residual(params, shape):
        params["architecture"] = "plain_residual"
    architecture = params.pop("architecture")
    params["backbone"] = None if architecture == "auto" else architecture
    return "MOCCA"


def _was_residual(params, shape):
    """Return whether a MOCCA of 0.1 had the residual encoder, for images of a shape."""
    if len(shape) == 3 and params["architecture"] == "auto":
        return (params["patch_size"] or min(shape[:2])) >= _RESIDUAL_SIZE
    return params["architecture"] == "residual"
