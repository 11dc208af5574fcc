"""One file per method: parameters, fit, scores, fitted attributes.

No network, no loop over batches and no formula lives here, and no estimator imports
another.
"""

# Where each detector lives, in alphabetical order. Nothing is imported here: a detector is
# loaded when it is first used.
MODULES = {
    "ConvAE": "skocc.estimators._conv_ae",
    "DataSplitOCC": "skocc.estimators._data_split_occ",
    "DeepSVDD": "skocc.estimators._deep_svdd",
    "FeatureCAE": "skocc.estimators._feature_cae",
    "MOCCA": "skocc.estimators._mocca",
    "PatchSVDD": "skocc.estimators._patch_svdd",
    "ResNetKNN": "skocc.estimators._resnet_knn",
    "VideoMOCCA": "skocc.estimators._video_mocca",
}
