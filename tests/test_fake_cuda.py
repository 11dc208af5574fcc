"""Nothing mixes devices, and no step of a training waits for the GPU: without a card.

See ``tests/fake_cuda.py``. What a new module, class or function of the listed parts of the
package does on a device needs a case here, or the first test fails.
"""

import importlib
import inspect
import pkgutil
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import skocc._engine
import skocc._nets
import skocc._ops
from skocc._engine import (
    ambient,
    batches,
    checkpoints,
    device,
    feature_cache,
    inference,
    memory,
    seeding,
    sharing,
    training,
    whole_files,
)
from skocc._nets import (
    alexnet,
    architectures,
    backbones,
    conv_autoencoder,
    distance,
    dry_run,
    feature_autoencoder,
    feature_maps,
    hooks,
    image_sizes,
    layer_encoder,
    layouts,
    lenet,
    mlp,
    named,
    normalization,
    own,
    own_autoencoder,
    own_code,
    own_patches,
    patch_encoder,
    residual_encoder,
    tracing,
    video_encoder,
    weights,
)
from skocc._ops import (
    clusters,
    coreset,
    losses,
    maps,
    neighbors,
    refined_search,
    scores,
    tensors,
    turns,
)
from skocc._ops import memory_bank as banks
from skocc._samples.sources import ArrayImages
from skocc.estimators import _augmentation as augmentation
from skocc.estimators import _filters as filters
from skocc.estimators import _patch_pairs as patch_pairs
from skocc.estimators import _patches as patches
from skocc.estimators import _pretraining as pretraining
from skocc.estimators import _spheres as spheres
from skocc.feature_extraction import DeepFeatures
from tests.fake_cuda import CUDA, fake_cuda
from tests.quick import ESTIMATORS, quick
from tests.waits import QUICK_VARIANTS, VARIANTS, fit_counting_waits

pytestmark = [
    pytest.mark.skipif(
        torch.cuda.is_available(), reason="there is a card: the tests marked gpu run on it"
    ),
    pytest.mark.skipif(
        not hasattr(torch._C, "_ensureCUDADeviceGuardSet"),
        reason=f"torch {torch.__version__} asks the driver of a card for its fake tensors",
    ),
]

MODULES = [
    *(
        importlib.import_module(info.name)
        for package in (skocc._nets, skocc._engine, skocc._ops)
        for info in pkgutil.iter_modules(package.__path__, f"{package.__name__}.")
    ),
    augmentation,
    filters,
    patch_pairs,
    patches,
    pretraining,
    spheres,
]

# They compute with numbers, build what has a case of its own, or only hold tensors.
WITHOUT_TENSORS = {
    alexnet.alexnet_code_size,
    alexnet.alexnet_widths,
    ambient.is_forked,
    ambient.WholeInterrupts,
    ambient.isolated,
    ambient.own_settings,
    ambient.without_modes,
    memory.memory_errors_named,
    sharing.fit_beside_others,
    sharing.make_room,
    backbones.keep_strided_layers_safe,
    banks.Bank,
    banks.BankSearch,
    banks.kept_under_budget,
    checkpoints.check_form,
    device.inference_dtype,
    device.resolve_device,
    device.sample_without_values,
    # They build and try out networks on the CPU, before a fit.
    dry_run.dry_run,
    dry_run.layer_outputs,
    hooks.LayerError,
    hooks.first_tensor,
    hooks.keep,
    hooks.keep_layers,
    hooks.run_on_images,
    image_sizes.set_image_size,
    layouts.Layout,
    layouts.default_layers,
    layouts.layout_of,
    layouts.n_dropped,
    named.Published,
    named.build_network,
    named.published_of,
    named.published_size,
    named.remove_classifier,
    named.size_of_weights,
    own_code.code_of,
    tracing.trace,
    weights.load_offline_weights,
    own.channels_first,
    own.is_own,
    own.own_module,
    own.possible_shapes,
    own.subject,
    own.taken_channels,
    own.try_out,
    lenet.lenet_latent_dim,
    lenet.lenet_widths,
    mlp.dense_layers,
    mlp.initialize_glorot,
    neighbors.bank_bytes,
    neighbors.error_of_products,
    neighbors.products_are_full_precision,
    neighbors.underflow_of_products,
    coreset.random_subset,
    tensors.relative_spread,
    tensors.tensor_view,
    maps.changed_pixels,
    maps.covering_weights,
    maps.patch_scores_to_map,
    whole_files.read_tensors,
    whole_files.replacing,
    whole_files.tensors_as_bytes,
    whole_files.tensors_of_bytes,
    whole_files.write_tensors,
    pretraining.has_contrast,
    seeding.may_draw,
    seeding.numpy_state_kept,
    seeding.random_states,
    seeding.set_random_states,
    architectures.Architecture,
    architectures.lenet_architecture,
    architectures.residual_architecture,
    architectures.row_architecture,
    architectures.video_architecture,
    augmentation.check_rotations,
    patch_encoder.patch_encoder,
    patches.check_kept,
    patches.check_patch_scales,
    patches.check_sampling,
    patches.warn_about_positions,
    spheres.final_radius,
    spheres.make_boundary,
    training.TrainingHistory,
    video_encoder.video_sizes,
}


def rand(*shape):
    return torch.rand(shape, device=CUDA)


def ints(*values):
    return torch.tensor(values).to(CUDA)


def generator():
    return torch.Generator().manual_seed(0)


def small_network():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())


def pixels(n=6, side=8, n_channels=3):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (n, side, side, n_channels), dtype=np.uint8)


# Networks: how they are built, on the CPU, and what they are given.
SMALL_WIDTHS = (4, 4, 4, 4, 4)
NETWORKS = {
    alexnet.CompactAlexNet: lambda: (
        alexnet.CompactAlexNet((3, 16, 16), 8, SMALL_WIDTHS, dropout=0.5),
        [rand(2, 3, 16, 16)],
    ),
    alexnet.AlexNetAutoencoder: lambda: (
        alexnet.AlexNetAutoencoder((1, 16, 16), widths=SMALL_WIDTHS),
        [rand(2, 1, 16, 16)],
    ),
    backbones.BackboneEncoder: lambda: (
        backbones.BackboneEncoder(small_network(), weights=None),
        [rand(2, 1, 8, 8)],
    ),
    hooks.HookedLayers: lambda: (
        hooks.HookedLayers(small_network().eval(), ["0", "2"]),
        [rand(2, 3, 8, 8)],
    ),
    backbones.FeatureMaps: lambda: (
        backbones.FeatureMaps(small_network(), ["0", "2"], weights=None),
        [rand(2, 1, 8, 8)],
    ),
    conv_autoencoder.ConvAutoencoder: lambda: (
        conv_autoencoder.ConvAutoencoder(3, 4),
        [rand(2, 3, 19, 16)],
    ),
    conv_autoencoder.ResidualBlock: lambda: (
        conv_autoencoder.ResidualBlock(3, 4),
        [rand(2, 3, 8, 8)],
    ),
    distance.LearntDistance: lambda: (
        distance.LearntDistance(4),
        [rand(2, 4), rand(2, 4)],
    ),
    feature_autoencoder.FeatureAutoencoder: lambda: (
        feature_autoencoder.FeatureAutoencoder(8, 2),
        [rand(2, 8, 3, 3)],
    ),
    layer_encoder.LayerEncoder: lambda: (
        layer_encoder.LayerEncoder(small_network(), None),
        [rand(2, 1, 8, 8)],
    ),
    own_autoencoder.OwnAutoencoder: lambda: (
        own_autoencoder.OwnAutoencoder(nn.Conv2d(3, 3, 1), (3, 8, 8)),
        [rand(2, 3, 8, 8)],
    ),
    own_patches.OwnPatchEncoder: lambda: (
        own_patches.OwnPatchEncoder(small_network(), None, 8, 3),
        [rand(2, 3, 8, 8)],
    ),
    feature_maps.FrozenFeatures: lambda: (
        feature_maps.FrozenFeatures(
            feature_maps.JoinedMaps(), small_network(), ["0"], None, "imagenet"
        ),
        [rand(2, 1, 8, 8)],
    ),
    feature_maps.GlobalAverages: lambda: (
        feature_maps.GlobalAverages(),
        [[rand(2, 3, 4, 4), rand(2, 5)]],
    ),
    feature_maps.JoinedMaps: lambda: (
        feature_maps.JoinedMaps("bilinear"),
        [[rand(2, 3, 4, 4), rand(2, 3, 2, 2)]],
    ),
    feature_maps.UnitLength: lambda: (
        feature_maps.UnitLength(feature_maps.JoinedMaps()),
        [[rand(2, 3, 8, 8), rand(2, 4, 4, 4)]],
    ),
    feature_maps.LocallyAwarePatches: lambda: (
        feature_maps.LocallyAwarePatches(4),
        [[rand(2, 3, 4, 4), rand(2, 3, 2, 2)]],
    ),
    lenet.LeNetEncoder: lambda: (
        lenet.LeNetEncoder((1, 28, 28), 8, (8, 4)),
        [rand(2, 1, 28, 28)],
    ),
    lenet.LeNetDecoder: lambda: (
        lenet.LeNetDecoder((1, 28, 28), 8, (8, 4)),
        [rand(2, 8)],
    ),
    mlp.MLP: lambda: (mlp.MLP((6, 4, 2)), [rand(3, 6)]),
    mlp.DenseAutoencoder: lambda: (mlp.DenseAutoencoder(6, (4,), 2), [rand(3, 6)]),
    normalization.ContrastNormalization: lambda: (
        normalization.ContrastNormalization(-3.0, 3.0),
        [rand(2, 3, 8, 8)],
    ),
    normalization.ImageNetNormalization: lambda: (
        normalization.ImageNetNormalization(),
        [rand(2, 1, 8, 8)],
    ),
    normalization.LocalContrastNormalization: lambda: (
        normalization.LocalContrastNormalization((8, 6), 2.0),
        [rand(2, 3, 8, 6)],
    ),
    normalization.MeanSubtraction: lambda: (
        normalization.MeanSubtraction(torch.zeros(1, 8, 8), 3),
        [rand(2, 1, 8, 8)],
    ),
    normalization.SymmetricRange: lambda: (
        normalization.SymmetricRange(),
        [rand(2, 3, 8, 8)],
    ),
    patch_encoder.PatchEncoder: lambda: (
        patch_encoder.PatchEncoder(4, 8),
        [rand(2, 3, 8, 8)],
    ),
    patch_encoder.HierarchicalPatchEncoder: lambda: (
        patch_encoder.HierarchicalPatchEncoder(4, 16),
        [rand(2, 3, 16, 16)],
    ),
    patch_encoder.WholePatchEncoder: lambda: (
        patch_encoder.WholePatchEncoder(4, 16),
        [rand(2, 3, 16, 16)],
    ),
    patch_encoder.SeparatePatchEncoders: lambda: (
        separate_encoders(),
        [rand(2, 3, 16, 16)],
    ),
    patch_encoder.PositionClassifier: lambda: (
        patch_encoder.PositionClassifier(4),
        [rand(2, 4), rand(2, 4)],
    ),
    residual_encoder.DownBlock: lambda: (
        residual_encoder.DownBlock(3, 4),
        [rand(2, 3, 9, 8)],
    ),
    residual_encoder.ResidualBlock: lambda: (
        residual_encoder.ResidualBlock(3),
        [rand(2, 3, 8, 8)],
    ),
    residual_encoder.ResidualEncoder: lambda: (
        residual_encoder.ResidualEncoder((3, 18, 18), 4, widths=(8, 8, 8, 8)),
        [rand(2, 3, 18, 18)],
    ),
    residual_encoder.ResidualDecoder: lambda: (
        residual_encoder.ResidualDecoder((3, 18, 18), 4, widths=(8, 8, 8, 8)),
        [rand(2, 4)],
    ),
    residual_encoder.Selector: lambda: (
        residual_encoder.Selector(3, is_map=True),
        [rand(2, 3, 9, 9)],
    ),
    residual_encoder.UpBlock: lambda: (
        residual_encoder.UpBlock(3, 4),
        [rand(2, 3, 4, 4)],
    ),
    video_encoder.CausalConvolution: lambda: (
        video_encoder.CausalConvolution(1, 2),
        [rand(2, 1, 4, 8, 8)],
    ),
    video_encoder.CausalDownBlock: lambda: (
        video_encoder.CausalDownBlock(1, 2, (2, 2, 2)),
        [rand(2, 1, 4, 8, 8)],
    ),
    video_encoder.VideoEncoder: lambda: (
        video_encoder.VideoEncoder((1, 4, 16, 16), 4, feature_dim=3),
        [rand(2, 1, 4, 16, 16)],
    ),
    video_encoder.VideoDecoder: lambda: (
        video_encoder.VideoDecoder((1, 4, 16, 16), 4),
        [rand(2, 1, 4)],
    ),
    video_encoder.VideoUpBlock: lambda: (
        video_encoder.VideoUpBlock(2, 1, (2, 2, 2), (4, 8, 8)),
        [rand(2, 2, 2, 4, 4)],
    ),
}


def layers_of(network, batch, layers):
    return network.to(CUDA).layer_features(batch, layers)


def windows_of(network, images):
    network = network.to(CUDA)
    base = network.base_map(images)
    picked = network.pick(base, ints(0, 1), ints(0, 1), ints(1, 0))
    return [base, picked, network.dense(images, 3), network.windows(images, [0, 3], [2])]


def separate_encoders():
    return patch_encoder.SeparatePatchEncoders(
        patch_encoder.PatchEncoder(4, 8), patch_encoder.WholePatchEncoder(4, 16)
    ).to(CUDA)


def published_weights(tmp_path):
    encoder = patch_encoder.HierarchicalPatchEncoder(4, 16)
    arrays = {name: value.numpy() for name, value in encoder.state_dict().items()}
    patch_encoder.load_encoder_weights(encoder.to(CUDA), arrays)
    values = {name: torch.from_numpy(array) for name, array in arrays.items()}
    save_file(values, tmp_path / "w.safetensors")
    torch.save(values, tmp_path / "w.pt")
    for name in ("w.safetensors", "w.pt"):
        patch_encoder.load_encoder_weights(encoder, tmp_path / name)
    return list(encoder.parameters())


def file_weights(tmp_path):
    network = small_network()
    torch.save(network.state_dict(), tmp_path / "w.pt")
    return list(weights.load_weights(network.to(CUDA), tmp_path / "w.pt").parameters())


def frozen_norm(tmp_path):
    network = small_network().to(CUDA).train()
    normalization.freeze_batch_norm(network)
    return network(rand(2, 3, 8, 8))


def image_batches(images=None, **options):
    images = ArrayImages(pixels()) if images is None else images
    options = {"generator": generator(), **options}
    return batches.ImageBatches(images, 2, device=CUDA, **options)


def all_batches(tmp_path):
    """Arrays and resident images, shuffled or not, with targets, drawn with replacement."""
    resident = batches.ResidentImages(ArrayImages(pixels()), CUDA)
    parts = batches.Subset(resident, np.array([4, 1, 2]))
    targets = torch.tensor([True, False, True, False, True, False])
    return [
        *image_batches(),
        *image_batches(resident),
        *image_batches(parts, generator=None),
        *(x for pair in image_batches(resident, targets=targets) for x in pair),
        *image_batches(resident, n_drawn=4, n_passes=2),
    ]


def trainings(tmp_path):
    """Two kinds of batches, a stopping rule, mixed precision and a scheduler."""
    network = small_network().to(CUDA)
    kinds = batches.InTurn(image_batches(), image_batches())
    validation = batches.InTurn(image_batches(generator=None))
    rules = [
        training.EarlyStopping(validation, 1),
        training.Convergence(1e-3, 1),
        training.StoppingRule(),
    ]
    for rule in rules:
        optimizer = training.adam(network.parameters(), 1e-3, 1e-6)
        training.train(
            network,
            lambda batch: network(batch[1]).mean(),
            kinds,
            optimizer=optimizer,
            n_epochs=2,
            scheduler=torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 2),
            stopping=rule,
            mixed_precision=True,
        )
    return list(network.parameters())


def searches(tmp_path):
    """Plain, with groups, in blocks, more neighbors than one."""
    queries, bank, groups = rand(6, 3), rand(40, 3), ints(*range(6))
    options = {"query_block": 4, "bank_block": 16}
    return [
        *neighbors.nearest(queries, bank),
        *neighbors.nearest(queries, bank, 2, **options),
        *neighbors.nearest(
            queries, bank, query_groups=groups, bank_groups=ints(*range(40)), **options
        ),
    ]


def searches_of_farthest_cells(tmp_path):
    """Plain, and with groups and more neighbors than one, in a bank that has clusters."""
    queries, bank = rand(3, 50, 4), rand(3300, 4)
    grouped = neighbors.PreparedBank(bank, torch.arange(3300, device=CUDA))
    pixels, columns = torch.eye(5, device=CUDA), torch.eye(10, device=CUDA)
    results = []
    for index, options in [
        (neighbors.PreparedBank(bank), {}),
        (grouped, {"n_neighbors": 2, "query_groups": ints(0, 1, 2)}),
    ]:
        cells = refined_search.Cells(queries, index, **options)
        refined_search.search_farthest(cells)
        results += [cells.distances, cells.indices]
        cells = refined_search.Cells(queries, index, **options)
        scale = refined_search.Scale(cells, pixels, columns)
        maps = refined_search.search_highest([scale], lambda x: x.view(3, 5, 10))
        results.append(maps.amax(dim=(1, 2)))
    return results


def bank_of_a_stream(tmp_path):
    """Both ways to choose, then a search in what was chosen, on the device."""
    results = []
    for subsampling in ("random", "coreset"):
        (bank,) = banks.build_banks(
            ([rand(6, 3)] for _ in range(3)),
            [18],
            [7],
            3,
            subsampling=subsampling,
            generator=generator(),
        )
        images, digests = bank.rows.int().numpy(), np.zeros((18, 16), np.uint8)
        memory_bank = banks.MemoryBank(bank.vectors.numpy(), images, digests)
        search = memory_bank.on(CUDA, "exact")
        images_of = ints(0, 1, -1, 2).int()
        results += search.nearest(rand(4, 3), images_of, 1)
        cells = search.cells(rand(4, 5, 3), images_of, 2)
        cells.search_all()
        results += [cells.distances, cells.indices]
        results.append(memory_bank.numbers_of(rand(3, 2, 4, 4)))
    held = banks.TrainingVectors([18], False, 3)
    results += held.add(rand(3, 2, 4, 4), [rand(18, 3)])
    ((numbers, (vectors,)),) = held.batches([memory_bank], 3)
    results += [numbers.to(CUDA), vectors.to(CUDA)]
    return results


class _Graph:
    """Stands in for pynndescent, which takes long to compile."""

    def __init__(self, vectors, **options):
        self._vectors = vectors

    def prepare(self):
        pass

    def query(self, queries, n_neighbors, epsilon):
        assert type(queries) is type(self._vectors) is np.ndarray
        return np.tile(np.arange(n_neighbors), (len(queries), 1)), None


def approximate(tmp_path):
    stand_in = SimpleNamespace(NNDescent=_Graph)
    stand_in = mock.Mock(return_value=stand_in)
    with mock.patch.object(neighbors, "_import_pynndescent", stand_in):
        index = neighbors.ApproximateIndex(rand(50, 4), torch.arange(50))
    distances, _ = index.nearest(rand(5, 4), query_groups=ints(*range(5)))
    assert distances.device.type == "cpu"
    return rand(1)


def coresets():
    """Choose by differences, and by products."""
    for n in (coreset._FEW, 1):
        with mock.patch.object(coreset, "_FEW", n):
            yield coreset.greedy_coreset(rand(9, 5), 4, generator(), n_projections=3)


def trained_soft_sphere(update):
    sphere = spheres.SoftBoundary(0.5, 2, 0, update, device=CUDA)
    values = [sphere(rand(4)) for _ in range(4)]
    return [*values, sphere.radius]


def on_the_cpu(tmp_path):
    """Centers and distances of a network on the device are wanted on the CPU."""
    network = nn.Linear(3, 2).to(CUDA)
    stream = [rand(4, 3), rand(2, 3)]
    (center,) = spheres.initial_centers(network, lambda x: [network(x)], stream)
    centers = [center.to(CUDA)]
    spheres.distances_to_centers(network, lambda x: [network(x)], stream, centers)
    inference.map_batches(network, stream, lambda x: (network(x), x))
    return [*centers, *inference.stream_batches(network, stream)]


def autoencoder(tmp_path):
    encoder, decoder = nn.Linear(3, 2).to(CUDA), nn.Linear(2, 3).to(CUDA)
    schedule = {"learning_rate": 1e-3, "weight_decay": 0.0, "milestones": (1,)}
    stream = [rand(4, 3), rand(4, 3)]
    schedule |= {"n_epochs": 2, "stage": "autoencoder"}
    pretraining.pretrain(encoder, decoder, lambda x: x, stream, **schedule)
    return list(encoder.parameters())


def learned_filters(tmp_path):
    """The dictionary is learned on the CPU, from batches on the device."""
    network = nn.Conv2d(3, 4, 3).to(CUDA)
    stream = [rand(20, 3, 6, 6)]
    assert filters.dictionary_filters(stream, lambda x: x, 4, 3, generator()) is not None
    pretraining.start_from_dictionary(network.weight, lambda x: x, stream, generator())
    return network.weight


def contrast(tmp_path):
    resident = batches.ResidentImages(ArrayImages(pixels()), CUDA)
    pretraining.contrast_extremes(resident)
    return pretraining.contrast_normalization(resident).to(CUDA)(rand(2, 3, 8, 8))


def cut_and_dense(tmp_path):
    encoder, images = (
        patch_encoder.HierarchicalPatchEncoder(4, 16).to(CUDA),
        rand(2, 3, 40, 40),
    )
    classifier = patch_encoder.PositionClassifier(4).to(CUDA)
    image, z = ints(0, 0, 1, 1), []
    for kind in (
        patch_pairs.DensePatches(encoder, images, (32, 32), 0.1, generator()),
        patch_pairs.CutPatches(images, 0.1, generator()),
    ):
        size = kind.map_size(encoder)
        anchors, others, _ = patch_pairs.position_pairs(size, 8, 4, generator())
        z += [kind.embed(encoder, image, anchors, view=0)]
        z += [kind.embed(encoder, image, others, view=1)]
        z += [
            kind.embed(encoder, image, patch_pairs.close_pairs(size, 8, 4, generator())[0])
        ]
        for objective in ("patch", "pairs", "svdd"):
            head = classifier, rand(4), image, 1.0, objective, generator()
            z += [patch_pairs.scale_loss(kind, encoder, *head)]
    parts = {"normalize": nn.Identity(), "encoder": encoder}
    parts |= {"classify_small": classifier, "classify_big": classifier}
    for sampling in ("dense", "patches"):
        loss = patch_pairs.pair_loss(
            nn.ModuleDict(parts), generator(), crop_size=(32, 32), sampling=sampling,
            noise=0.1, n_pairs=2, svdd_weight=1.0,
        )  # fmt: skip
        z += [loss(images)]
    return z


def patches_of_images(tmp_path):
    grid, whole = patches.PatchGrid((9, 8, 3), 4, 2), patches.WholeSamples((9, 8, 3))
    images = rand(2, 3, 9, 8)
    drawn = [kind.sample(images, generator()) for kind in (grid, whole)]
    return [*drawn, grid.tile(images), whole.tile(images)]


def kept_features(tmp_path):
    network = backbones.FeatureMaps(small_network(), ["0"], None).to(CUDA)
    compute = feature_cache.cached(network, tmp_path)
    return [
        *compute(rand(2, 3, 8, 8)),
        *feature_cache.cached(network, None)(rand(2, 3, 8, 8)),
    ]


def checkpoint(tmp_path):
    with seeding.seeded(0, CUDA) as draws:
        network = nn.Linear(3, 2)
        saved = checkpoints.Checkpoint(tmp_path / "x.pt", {}, generator=draws)
        saved.save({"module": network}, [], torch.device("cpu"))
        network.to(CUDA)
        saved.load({"module": network}, CUDA)
    return list(network.parameters())


def network_elsewhere(tmp_path):
    network = small_network()
    there = device.on_device(network, CUDA, torch.float64)
    assert next(network.parameters()).device.type == "cpu"
    return [*there.parameters(), device.sent_to(torch.ones(2), CUDA)]


def sources(tmp_path):
    """What is held on the device, wherever it came from."""
    held = batches.hold_maps([rand(2, 3, 4, 4)], (2, 3, 4, 4), CUDA)
    kept = batches.keep_on_device(ArrayImages(pixels()), CUDA)
    assert isinstance(kept, batches.ResidentImages)
    maps = batches.ResidentMaps([torch.rand(2, 3, 4, 4)], 2, CUDA)
    return [x.load(np.array([1, 0])) for x in (held, kept, maps)]


# What is used together: the result is tensors that must be on the device.
SEVERAL = {
    all_batches: [batches.ImageBatches, batches.ResidentImages, batches.Subset],
    approximate: [neighbors.ApproximateIndex],
    autoencoder: [
        pretraining.pretrain,
        training.milestone_schedule,
        training.train_by_milestones,
    ],
    bank_of_a_stream: [banks.TrainingVectors, banks.build_banks, banks.MemoryBank],
    checkpoint: [checkpoints.Checkpoint, seeding.seeded],
    contrast: [pretraining.contrast_extremes, pretraining.contrast_normalization],
    cut_and_dense: [
        patch_pairs.CutPatches,
        patch_pairs.DensePatches,
        patch_pairs.close_pairs,
        patch_pairs.pair_loss,
        patch_pairs.position_pairs,
        patch_pairs.scale_loss,
    ],
    file_weights: [weights.load_weights],
    frozen_norm: [normalization.freeze_batch_norm],
    kept_features: [feature_cache.cached, feature_cache.fingerprint],
    learned_filters: [filters.dictionary_filters, pretraining.start_from_dictionary],
    network_elsewhere: [device.on_device, device.sent_to],
    on_the_cpu: [
        inference.map_batches,
        inference.stream_batches,
        spheres.initial_centers,
        spheres.distances_to_centers,
    ],
    trainings: [
        batches.InTurn,
        training.Convergence,
        training.EarlyStopping,
        training.EpochWatcher,
        training.StoppingRule,
        training.adam,
        training.train,
    ],
    patches_of_images: [patches.PatchGrid, patches.WholeSamples],
    published_weights: [patch_encoder.load_encoder_weights],
    searches: [neighbors.Frame, neighbors.nearest, neighbors.column_smallest],
    searches_of_farthest_cells: [
        refined_search.search_farthest,
        refined_search.search_highest,
        refined_search.Cells,
        refined_search.Scale,
        neighbors.PreparedBank,
        clusters.Clusters,
        clusters.count,
    ],
    sources: [batches.ResidentMaps, batches.hold_maps, batches.keep_on_device],
}
CASES = {
    augmentation.random_rotations: lambda: augmentation.random_rotations(
        rand(2, 3, 12, 9), -45, 45, generator()
    ),
    augmentation.random_variants: lambda: augmentation.random_variants((12, 12))(
        rand(8, 3, 12, 12)
    ),
    backbones.count_features: lambda: rand(
        backbones.count_features(nn.Linear(3, 2), (3,))  # on the CPU, before a fit
    ),
    banks.image_digests: lambda: rand(len(banks.image_digests(rand(3, 2, 4, 4)))),
    banks.to_rows: lambda: banks.to_rows(rand(2, 3, 4, 4)),
    maps.cell_scores_to_map: lambda: maps.cell_scores_to_map(rand(2, 3, 4), (6, 8)),
    layouts.as_map: lambda: layouts.as_map(
        rand(2, 5, 3), layouts.Layout(n_prefix_tokens=1), (8, 8)
    ),
    own.in_channels: lambda: own.in_channels(rand(2, 1, 4, 4), 3),
    feature_maps.largest_grid: lambda: rand(*feature_maps.largest_grid([rand(2, 3, 4, 4)])),
    losses.closeness_loss: lambda: losses.closeness_loss(rand(4)),
    losses.dispersion_loss: lambda: losses.dispersion_loss(rand(4)),
    scores.divided_by: lambda: scores.divided_by(rand(2, 3), rand(2)),
    scores.reweighting: lambda: scores.reweighting(rand(2, 3), 4),
    turns.turned: lambda: [
        *turns.turned(rand(2, 3, 6, 6), 8),
        *turns.turned(rand(1, 3, 4, 6), 3),
    ],
    scores.divided_by_median: lambda: scores.divided_by_median(rand(2, 3, 4)),
    losses.hard_boundary_loss: lambda: losses.hard_boundary_loss(rand(4)),
    losses.intra_class_loss: lambda: losses.intra_class_loss(rand(4), rand(4) > 0.5),
    losses.pairwise_distance_loss: lambda: losses.pairwise_distance_loss(
        rand(4, 2), rand(4, 2)
    ),
    losses.reconstruction_loss: lambda: losses.reconstruction_loss(rand(4, 2), rand(4, 2)),
    scores.similarity_map: lambda: scores.similarity_map(
        rand(2, 3, 14, 12), rand(2, 3, 14, 12)
    ),
    losses.soft_boundary_loss: lambda: losses.soft_boundary_loss(rand(4), rand(1)[0], 0.1),
    losses.squared_distance: lambda: losses.squared_distance(rand(4, 2), rand(2)),
    scores.squared_error_map: lambda: scores.squared_error_map(
        rand(2, 3, 4, 4), rand(2, 3, 4, 4)
    ),
    scores.structural_similarity: lambda: scores.structural_similarity(
        rand(2, 3, 14, 12), rand(2, 3, 14, 12)
    ),
    neighbors.exact_distances: lambda: neighbors.exact_distances(
        rand(3, 2), rand(5, 2), torch.zeros(3, 4, dtype=torch.int64, device=CUDA)
    ),
    coreset.greedy_coreset: lambda: [*coresets()],
    normalization.global_contrast_normalize: lambda: (
        normalization.global_contrast_normalize(rand(2, 3, 4, 4))
    ),
    patch_pairs.photometric_noise: lambda: patch_pairs.photometric_noise(
        rand(2, 3, 4, 4), 0.1, generator()
    ),
    patch_pairs.random_crops: lambda: patch_pairs.random_crops(
        rand(2, 3, 9, 8), (4, 4), generator()
    ),
    spheres.HardBoundary: lambda: spheres.HardBoundary()(rand(4)),
    spheres.SoftBoundary: lambda: [
        *trained_soft_sphere("batch"),
        *trained_soft_sphere("epoch"),
    ],
    spheres.away_from_zero: lambda: spheres.away_from_zero(rand(4)),
    spheres.quantile_radius: lambda: spheres.quantile_radius(rand(4), 0.1),
}
METHODS = {
    "lenet": lambda: layers_of(
        lenet.LeNetEncoder((1, 28, 28), 8, (8, 4)), rand(2, 1, 28, 28), (0, 2)
    ),
    "mlp": lambda: layers_of(mlp.MLP((6, 4, 2)), rand(3, 6), (0, 1)),
    "patches": lambda: windows_of(patch_encoder.PatchEncoder(4, 8), rand(2, 3, 13, 12)),
    "hierarchy": lambda: [
        *patch_encoder.HierarchicalPatchEncoder(4, 16)
        .to(CUDA)
        .dense_scales(rand(2, 3, 20, 20), 3, 4)
    ],
    "nested": lambda: [patch_encoder.patch_encoder(4, 64, 3).to(CUDA)(rand(2, 3, 64, 64))],
    "separate": lambda: [*separate_encoders().dense_scales(rand(2, 3, 20, 20), 3, 4)],
    "residual": lambda: layers_of(
        residual_encoder.ResidualEncoder((3, 18, 18), 4, True, (8, 8, 8, 8)),
        rand(2, 3, 18, 18),
        (0, 4, 6),
    ),
    "video": lambda: layers_of(
        video_encoder.VideoEncoder((1, 4, 16, 16), 4), rand(2, 1, 4, 16, 16), (0, 6)
    ),
}


def public_names():
    """Return the functions and classes that the modules define."""
    return {
        value
        for module in MODULES
        for name, value in vars(module).items()
        if (inspect.isclass(value) or inspect.isfunction(value))
        and value.__module__ == module.__name__
        and not name.startswith("_")
    }


def test_every_name_has_a_case():
    covered = {*NETWORKS, *CASES, *WITHOUT_TENSORS}.union(*SEVERAL.values())
    names = public_names()
    missing = {f"{x.__module__}.{x.__name__}" for x in names - covered}
    assert not missing, f"add a case to {__file__}, on the device CUDA: {sorted(missing)}"
    networks = {x for x in names if inspect.isclass(x) and issubclass(x, nn.Module)}
    assert networks == set(NETWORKS)


def tensors(value):
    return [value] if isinstance(value, torch.Tensor) else list(value)


def all_on(values, type):
    return {value.device.type for value in tensors(values)} == {type}


@pytest.mark.parametrize("case", NETWORKS, ids=lambda case: case.__qualname__)
def test_networks(case):
    with fake_cuda() as waits:
        network, inputs = NETWORKS[case]()
        network.to(CUDA).train()
        waits.clear()
        outputs = tensors(network(*inputs))
        assert all_on(outputs, "cuda")
        learned = [x for x in network.parameters() if x.requires_grad]
        if learned:
            optimizer = torch.optim.Adam(learned)
            sum(output.sum() for output in outputs).backward()
            optimizer.step()
        assert not waits.total()  # neither forward nor step
        assert all_on(network.eval()(*inputs), "cuda")
        assert all(x.device.type == "cpu" for x in network.cpu().state_dict().values())


@pytest.mark.parametrize("case", METHODS)
def test_other_methods_of_networks(case):
    with fake_cuda():
        assert all_on(METHODS[case](), "cuda")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__qualname__)
def test_functions(case):
    with fake_cuda():
        assert all_on(CASES[case](), "cuda")


@pytest.mark.parametrize("case", SEVERAL, ids=lambda case: case.__name__)
@pytest.mark.filterwarnings("ignore:.*CUDA is not available:UserWarning")  # autocast
def test_what_works_together(case, tmp_path):
    with fake_cuda():
        assert all_on(case(tmp_path), "cuda")


@pytest.mark.parametrize(
    "operation",
    [
        lambda cpu, cuda: cpu + cuda,
        lambda cpu, cuda: torch.cat([cpu, cuda]),
        lambda cpu, cuda: torch.where(cpu > 0.5, cuda, cuda),
        lambda cpu, cuda: cuda.masked_fill(cpu > 0.5, 0),
        lambda cpu, cuda: cuda @ cpu,
        lambda cpu, cuda: cpu[torch.zeros(2, dtype=torch.int64, device=CUDA)],
        lambda cpu, cuda: cuda.gather(0, torch.zeros(2, dtype=torch.int64)),
        lambda cpu, cuda: cuda.index_put_((torch.zeros(2).long(),), cpu),
        lambda cpu, cuda: torch.rand(3, device=CUDA, generator=generator()),
        lambda cpu, cuda: cuda.normal_(generator=generator()),
        lambda cpu, cuda: cuda.numpy(),
        lambda cpu, cuda: np.asarray(cuda),
        lambda cpu, cuda: nn.Linear(2, 2)(cuda),
        lambda cpu, cuda: losses.squared_distance(rand(4, 2), cpu),
    ],
)
def test_mixed_devices_are_refused(operation):
    with fake_cuda(), pytest.raises((RuntimeError, TypeError)):
        operation(torch.rand(2), rand(2))


@pytest.mark.parametrize(
    "operation",
    [
        lambda cuda: cuda.sum().item(),
        lambda cuda: float(cuda[0]),
        lambda cuda: bool((cuda > 0).any()),
        lambda cuda: cuda.tolist(),
        lambda cuda: cuda.cpu(),
        lambda cuda: cuda[cuda > 0],
        lambda cuda: cuda[torch.tensor([1, 0])],
        lambda cuda: torch.ones(2).to(CUDA),
        lambda cuda: torch.as_tensor(np.ones(2), device=CUDA),
        lambda cuda: torch.tensor([1.0, 2.0], device=CUDA),
        lambda cuda: torch.ones(2).copy_(cuda),
        lambda cuda: cuda.copy_(torch.ones(2)),
        lambda cuda: cuda.unique(),
    ],
)
def test_waits_are_counted(operation):
    with fake_cuda() as waits:
        cuda = rand(2)
        operation(cuda)
    assert waits.total() >= 1


def test_what_does_not_wait_is_not_counted():
    with fake_cuda() as waits:
        cuda = rand(2)
        torch.ones(2).to(CUDA, non_blocking=True)
        (cuda * 2).sum()
        cuda[ints(1)[:0].new_zeros(1)]
        before = waits.total() - 1  # of `ints`
    assert before == 0


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        pytest.param(*case, marks=[] if case in QUICK_VARIANTS else pytest.mark.slow)
        for case in VARIANTS
    ],
)
# The values are made up, and so may say anything.
@pytest.mark.filterwarnings("ignore::skocc.CollapseWarning")
def test_estimators(name, variant):
    """Whole fits and scores; and no step of a training waits for the device."""
    with fake_cuda() as waits:
        estimator, X, at_steps = fit_counting_waits(name, variant, waits.copy)
        arrays = [estimator.score_samples(X[:3])]
        for method in ("anomaly_map", "embed", "layer_scores"):
            if hasattr(estimator, method):
                arrays.append(getattr(estimator, method)(X[:3]))
    assert all(isinstance(array, np.ndarray) and len(array) == 3 for array in arrays)
    held = [x for x in vars(estimator).values() if isinstance(x, nn.Module)]
    for module in held:
        assert all(x.device.type == "cpu" for x in module.state_dict().values())
    assert at_steps or not hasattr(estimator, "loss_curve_")
    for counts in at_steps:
        assert len(counts) > 1  # more than one step
        waited = counts[-1] - counts[0]
        # torchvision moves the matrix of each image's affine change, three numbers' worth.
        n_allowed = 0 if not variant.get("augmentation") else 3 * 4 * (len(counts) - 1)
        assert waited.total() <= n_allowed, waited


def test_every_estimator_has_a_variant():
    assert {cls.__name__ for cls in ESTIMATORS} == {name for name, _ in VARIANTS}
    assert all(case in VARIANTS for case in QUICK_VARIANTS)


def test_deep_features():
    X = pixels(n_channels=3, side=32)
    with fake_cuda():
        transformer = DeepFeatures(
            backbone=small_network(), weights=None, layers=("0",), image_size=None,
            device="cuda",
        )  # fmt: skip
        assert transformer.fit_transform(X).shape == (6, 4)


def test_nothing_is_left_behind():
    """After the block, torch and the devices are what they were."""
    with fake_cuda():
        quick(skocc.DeepSVDD, device="cuda").fit(pixels())
    with pytest.raises((AssertionError, RuntimeError)):
        torch.ones(2, device="cuda")
    network = nn.Linear(2, 2)
    weight = network.weight
    assert network.double().weight is weight  # changed in place, as torch does
    assert type(torch.ones(2) + 1) is torch.Tensor
