"""Parameters that change nothing beside others, one table for each method.

Not listed are values that say what happens anyway, such as ``pretrain_n_epochs=0`` with a
backbone, and what depends on the data, such as a coreset of a bank that is small enough.
"""

from skocc._base.effects import NO_HELD_OUT_IMAGES, NoEffect

_PRETRAINING = ("pretrain_learning_rate", "pretrain_weight_decay", "pretrain_milestones")


_HARD_BOUNDARY = NoEffect(
    ("radius_update", "warm_up_n_epochs"),
    lambda d: d.boundary == "hard",
    "a hard boundary has no radius to update",
    "set boundary='soft'",
)


def _no_pretraining(*parameters: str) -> NoEffect:
    """Return the rule for parameters of a stage that has no epochs."""
    return NoEffect(
        parameters,
        lambda d: d.pretrain_n_epochs == 0,
        "pretrain_n_epochs=0 leaves that stage out",
        "set pretrain_n_epochs",
    )


DEEP_SVDD_RULES = (
    NO_HELD_OUT_IMAGES,
    _HARD_BOUNDARY,
    _no_pretraining(*_PRETRAINING),
    NoEffect(
        ("channels", "embedding_dim", *_PRETRAINING),
        lambda d: d.backbone is not None,
        "a backbone has its own layers, and is not pretrained",
        "set backbone=None",
    ),
    NoEffect(
        ("pretrain_n_epochs",),
        lambda d: d.backbone is not None and d.pretrain_n_epochs > 0,
        "a backbone is not pretrained as an autoencoder",
        "set backbone=None",
    ),
    NoEffect(
        ("weights",),
        lambda d: d.backbone is None and d.weights is not None,
        "it is for a backbone, and there is none",
        "set backbone",
    ),
)

MOCCA_RULES = (
    NO_HELD_OUT_IMAGES,
    _HARD_BOUNDARY,
    _no_pretraining(*_PRETRAINING),
    NoEffect(
        ("channels", "embedding_dim", *_PRETRAINING),
        lambda d: d._is_other(),
        "it is for the encoders of the paper, and this backbone is another",
        "set backbone=None",
    ),
    NoEffect(
        ("pretrain_n_epochs",),
        lambda d: d._is_other() and d.pretrain_n_epochs > 0,
        "a backbone that is not the paper's is not pretrained as an autoencoder",
        "set backbone=None",
    ),
    NoEffect(
        ("weights",),
        lambda d: not d._is_other() and d.weights is not None,
        "it is for a backbone of torchvision or of your own, and there is none",
        "set backbone",
    ),
    NoEffect(
        ("filter_init",),
        lambda d: d._is_other() or d._is_residual() or len(d.image_shape_) == 1,
        "a dictionary is for the first layer of a LeNet on images",
        "set backbone='lenet'",
    ),
    NoEffect(
        ("n_crops",),
        lambda d: d.patch_size is None,
        "whole images are not cropped",
        "set patch_size",
    ),
)

VIDEO_MOCCA_RULES = (
    NO_HELD_OUT_IMAGES,
    _HARD_BOUNDARY,
    NoEffect(
        ("embedding_dim",),
        lambda d: d.backbone is not None,
        "a backbone has its own layers",
        "set backbone=None",
    ),
    NoEffect(
        ("reconstruction_weight",),
        lambda d: d.backbone is not None and d.reconstruction_weight > 0,
        "a backbone has no decoder, and nothing is reconstructed",
        "set backbone=None",
    ),
    NoEffect(
        ("clip_stride",),
        lambda d: d.clip_length is None,
        "with clip_length=None, X holds the clips",
        "set clip_length",
    ),
)

PATCH_SVDD_RULES = (
    NO_HELD_OUT_IMAGES,
    NoEffect(
        ("svdd_weight", "train_head"),
        lambda d: d.objective != "patch",
        "it is for positions beside distances, and the objective is the latter alone",
        "set objective='patch'",
    ),
    NoEffect(
        ("n_neighbors", "max_bank_bytes", "subsampling", "search"),
        lambda d: d.objective == "svdd",
        "a center takes the place of the banks",
        "set objective='patch'",
    ),
    NoEffect(
        ("embedding_dim",),
        lambda d: d.backbone is not None,
        "a backbone has its own features",
        "set backbone=None",
    ),
    NoEffect(
        ("subsampling",),
        lambda d: d.max_bank_bytes is None,
        "with max_bank_bytes=None, all vectors are kept",
        "set max_bank_bytes",
    ),
)

CONV_AE_RULES = (
    NoEffect(
        ("base_channels",),
        lambda d: d.autoencoder is not None,
        "an autoencoder of your own has its own layers",
        "set autoencoder=None",
    ),
    NoEffect(
        ("n_augmented",),
        lambda d: not d.augmentation,
        "without augmentation there are no copies",
        "set augmentation=True",
    ),
    NoEffect(
        ("checkpoint_every",),
        lambda d: d.checkpoint_dir is None,
        "without a folder there are no checkpoints",
        "set checkpoint_dir",
    ),
)

FEATURE_CAE_RULES = (
    NO_HELD_OUT_IMAGES,
    NoEffect(
        ("latent_dim",),
        lambda d: d.autoencoder is not None,
        "an autoencoder of your own has its own layers",
        "set autoencoder=None",
    ),
    NoEffect(
        ("n_top",),
        lambda d: d.cell_aggregation != "top-k",
        "it is the number of cells of cell_aggregation='top-k'",
        "set that",
    ),
)

RESNET_KNN_RULES = (
    NoEffect(
        ("embedding_dim",),
        lambda d: d.pooling != "locally_aware",
        "cells keep the channels of the layers",
        "set pooling='locally_aware'",
    ),
    NoEffect(
        ("subsampling",),
        lambda d: d.bank_fraction == 1 and d.max_bank_bytes is None,
        "all vectors are kept",
        "set bank_fraction or max_bank_bytes",
    ),
)

DATA_SPLIT_OCC_RULES = (
    _no_pretraining("pretrain_learning_rate", "pretrain_weight_decay"),
    NoEffect(
        ("embedding_dim", "dropout"),
        lambda d: not d._networks().is_ours,
        "it is for the compact AlexNet and for the network for rows",
        "set backbone=None, for images below 63 pixels or rows",
    ),
    NoEffect(
        ("weights",),
        lambda d: d._networks().is_ours,
        "it is for a backbone, and there is none",
        "set backbone",
    ),
    NoEffect(
        ("n_iter_no_change",),
        lambda d: d.tol is None and d.validation_fraction == 0,
        "with tol=None and no held-out images, training does not end early",
        "set tol or validation_fraction",
    ),
    NoEffect(
        ("tol",),
        lambda d: d.validation_fraction > 0 and d.tol is not None,
        "held-out images say when to stop",
        "set validation_fraction=0",
    ),
)
