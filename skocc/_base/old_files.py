"""Conversion of model files of earlier versions to the format of this version.

The table ``RENAMED`` lists the names that have changed. This file makes the changes that
such a table cannot express.
"""

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
    "architecture", "selectors", "widths", "patch_size", "n_crops", "filter_init",
    "freeze_bn", "pretrain_n_epochs", "pretrain_learning_rate", "pretrain_weight_decay",
    "pretrain_milestones",
)  # fmt: skip


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
        is_video = len(values["image_shape_"]["tuple"]) == 4
        for other in _OF_IMAGES if is_video else _OF_VIDEOS:
            params.pop(other, None)
        if is_video:
            name = "VideoMOCCA"
            values.pop("pretrain_loss_curve_", None)
            if params.get("normalization") == "auto":
                params["normalization"] = None
    if name in _BANKS and "_digests" in arrays:
        for index in _REBUILT:
            values.pop(index, None)
        digests = arrays.pop("_digests")
        for bank, (vectors, images) in _BANKS[name].items():
            arrays[f"{bank}/vectors"] = arrays.pop(vectors)
            arrays[f"{bank}/images"] = arrays.pop(images)
            arrays[f"{bank}/digests"] = digests
    return {**header, "estimator": name, "params": params, "values": values}, arrays
