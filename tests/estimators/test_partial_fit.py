"""Memory banks that grow: `partial_fit` of the methods that have one."""

import pickle
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

import skocc
from skocc._ops.neighbors import nearest
from skocc._ops.tensors import tensor_view
from tests.quick import ESTIMATORS, quick

GROWING = [c for c in ESTIMATORS if hasattr(c, "partial_fit")]
BANKS = {"PatchSVDD": ("bank_small_", "bank_big_"), "ResNetKNN": ("bank_",)}
# A budget of a third of all vectors of the images, and the whole of them.
LIMITS = {"PatchSVDD": 2**15, "ResNetKNN": 2**15}
every_class = pytest.mark.parametrize("cls", GROWING)


@pytest.fixture(scope="module")
def images(all_digits):
    return all_digits[0][:40]


@pytest.fixture(scope="module")
def others(all_digits):
    return all_digits[1][:20]


def make(cls, **params):
    """Return a detector whose parts of ten images are whole batches."""
    params = {"max_bank_bytes": None, "batch_size": 10} | params
    if "n_epochs" in cls().get_params():
        # What is learned of the first part is there if it is fitted again on all.
        params = {"n_epochs": 0, "warm_start": True} | params
    return quick(cls, **params)


def in_parts(detector, images, n=10):
    for start in range(0, len(images), n):
        detector.partial_fit(images[start : start + n])
    return detector


def banks_of(detector):
    return [getattr(detector, name) for name in BANKS[type(detector).__name__]]


def assert_equal(first, second, X):
    """Raise an error unless two detectors are the same to the last bit."""
    for name in ("train_scores_", "train_map_maxima_", "offset_", "pixel_threshold_"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    assert first.n_samples_seen_ == second.n_samples_seen_
    for one, other in zip(banks_of(first), banks_of(second), strict=True):
        for name in ("vectors", "images", "digests"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
            assert getattr(one, name).dtype == getattr(other, name).dtype
    np.testing.assert_array_equal(first.score_samples(X), second.score_samples(X))


def test_the_classes_are_those_with_a_bank():
    assert {cls.__name__ for cls in GROWING} == BANKS.keys()


OPTIONS = {
    "PatchSVDD": [
        {},
        {"n_neighbors": 3},
        {"subsampling": "coreset", "max_bank_bytes": 2**30},
    ],
    "ResNetKNN": [
        {},
        {"neighbor_aggregation": "mean", "n_neighbors": 3, "reweighting": 3},
        {"score_normalization": "median", "smoothing": 1.0},
        {"bank_rotations": 4},
        {"bank_rotations": 3, "max_bank_bytes": 2**30, "subsampling": "coreset"},
    ],
}


@pytest.mark.parametrize(
    ("cls", "params"),
    [(cls, params) for cls in GROWING for params in OPTIONS[cls.__name__]],
)
def test_parts_equal_the_whole_to_the_last_bit(cls, params, images, others):
    X = np.concatenate([images[:31], images[:1], others])
    first = make(cls, **params).fit(images[:10])
    whole = clone(first)
    for name, value in vars(first).items():
        setattr(whole, name, value)
    whole = whole.fit(images[:35])
    assert_equal(in_parts(make(cls, **params), images[:35]), whole, X)


@every_class
def test_a_copy_in_a_later_part_is_a_copy(cls, images):
    whole = make(cls).fit(images[:10])
    whole.fit(np.concatenate([images[:20], images[:1]]))
    parts = in_parts(make(cls), images[:20]).partial_fit(images[:1])
    assert_equal(parts, whole, images)
    assert parts.train_scores_[0] == parts.train_scores_[-1] == 0


@every_class
def test_the_first_call_is_fit_and_fit_starts_anew(cls, images):
    detector = quick(cls)
    assert detector.partial_fit(images[:12]) is detector
    fitted = quick(cls).fit(images[:12])
    assert_equal(detector, fitted, images)
    assert detector.n_samples_seen_ == 12
    assert type(detector.n_samples_seen_) is int
    assert detector.partial_fit(images[12:13]) is detector
    assert detector.n_samples_seen_ == 13
    assert_equal(detector.fit(images[:12]), fitted, images)
    with pytest.raises(ValueError, match="at least 2 images"):
        quick(cls).partial_fit(images[:1])


@every_class
def test_the_network_stays_as_it_is(cls, images):
    detector = quick(cls).fit(images[:12])
    before = {k: v.clone() for k, v in detector.network_.state_dict().items()}
    losses = getattr(detector, "loss_curve_", None)
    detector.partial_fit(images[12:])
    after = detector.network_.state_dict()
    assert all((after[key] == value).all() for key, value in before.items())
    assert getattr(detector, "loss_curve_", None) == losses


@every_class
@pytest.mark.parametrize("subsampling", ["random", "coreset"])
def test_a_budget_holds_in_every_call(cls, subsampling, images):
    limit = LIMITS[cls.__name__]
    all_vectors = make(cls).fit(images[:10])
    all_vectors.fit(images)
    detector = make(cls, max_bank_bytes=limit, subsampling=subsampling)
    n_before = 0
    for start in range(0, 40, 5):
        detector.partial_fit(images[start : start + 5])
        n_bytes = sum(bank.vectors.nbytes for bank in banks_of(detector))
        assert n_before <= n_bytes <= limit
        n_before = n_bytes
        assert np.isfinite(detector.train_scores_).all()
    d = banks_of(detector)[0].vectors.shape[1]
    assert n_bytes > limit - 2 * 4 * d
    # Vectors of the images that they are said to be of, from all calls.
    for bank in banks_of(detector):
        assert np.ptp(bank.images) > 25
        assert bank.digests.shape == (40, 16)
    np.testing.assert_array_equal(
        banks_of(detector)[0].digests, banks_of(all_vectors)[0].digests
    )


def test_vectors_are_of_the_images_that_they_are_said_to_be_of(images):
    (cls,) = [c for c in GROWING if c.__name__ == "ResNetKNN"]
    whole = make(cls, batch_size=5).fit(images).bank_
    n_each = len(whole) // 40
    for subsampling in ("random", "coreset"):
        params = {"bank_fraction": 0.2, "subsampling": subsampling, "batch_size": 5}
        bank = in_parts(make(cls, **params), images, 5).bank_
        assert len(bank) == round(0.2 * len(whole))
        for number in range(40):
            own = {tuple(v) for v in whole.vectors[number * n_each :][:n_each]}
            assert {tuple(v) for v in bank.vectors[bank.images == number]} <= own


@every_class
def test_earlier_scores_are_kept_where_vectors_are_missing(cls, images, others):
    detector = make(cls, max_bank_bytes=LIMITS[cls.__name__]).fit(images[:30])
    scores, maxima = detector.train_scores_, detector.train_map_maxima_
    detector.partial_fit(images[30:])
    np.testing.assert_array_equal(detector.train_scores_[:30], scores)
    np.testing.assert_array_equal(detector.train_map_maxima_[:30], maxima)
    # The new images have the scores that they have from now on.
    np.testing.assert_array_equal(
        detector.score_samples(images[30:]), detector.train_scores_[30:]
    )
    maps = detector.anomaly_map(images[30:], size="model")
    np.testing.assert_array_equal(maps.max(axis=(1, 2)), detector.train_map_maxima_[30:])
    expected = detector.offset_
    assert detector.set_contamination(0.3).set_contamination(0.1).offset_ == expected


@every_class
def test_features_that_were_not_held_are_computed_again(cls, images, monkeypatch):
    params = {"max_bank_bytes": LIMITS[cls.__name__]}
    held = in_parts(make(cls, **params), images, 20)
    monkeypatch.setattr("skocc._ops.memory_bank._HELD_BYTES", 0)
    assert_equal(in_parts(make(cls, **params), images, 20), held, images)


@every_class
@pytest.mark.parametrize("subsampling", ["random", "coreset"])
def test_the_same_calls_give_the_same_bits(cls, subsampling, images):
    params = {"max_bank_bytes": LIMITS[cls.__name__], "subsampling": subsampling}
    first, second = (in_parts(make(cls, **params), images) for _ in range(2))
    assert_equal(first, second, images)
    with ThreadPoolExecutor(2) as pool:
        several = pool.map(lambda _: in_parts(make(cls, **params), images), range(2))
        for detector in several:
            assert_equal(detector, first, images)
    if subsampling == "random":
        other = in_parts(make(cls, **params, random_state=1), images)
        assert not np.array_equal(banks_of(first)[0].images, banks_of(other)[0].images)


def test_every_call_draws_anew(images):
    """From equal parts, an int does not choose the vectors at the same places."""
    (cls,) = [c for c in GROWING if c.__name__ == "ResNetKNN"]
    bank = in_parts(make(cls, bank_fraction=0.2), images).bank_
    whole = {tuple(v): row for row, v in enumerate(make(cls).fit(images).bank_.vectors)}
    n_each = len(whole) // 4
    places = [
        [whole[tuple(v)] % n_each for v in bank.vectors[bank.images // 10 == part]]
        for part in range(4)
    ]
    assert len({tuple(sorted(part)) for part in places}) == 4


@every_class
def test_saved_or_pickled_in_between(cls, images, tmp_path):
    params = {"max_bank_bytes": LIMITS[cls.__name__]}
    straight = in_parts(make(cls, **params), images)
    detector = in_parts(make(cls, **params), images[:20])
    detector.score_samples(images)  # what a search needs is made
    skocc.save(detector, tmp_path / "model.safetensors")
    for again in [
        skocc.load(tmp_path / "model.safetensors"),
        pickle.loads(pickle.dumps(detector)),
        detector,
    ]:
        assert again.n_samples_seen_ == 20
        assert_equal(in_parts(again, images[20:]), straight, images)


@every_class
def test_a_failed_call_changes_nothing(cls, images, monkeypatch):
    detector = make(cls, max_bank_bytes=LIMITS[cls.__name__]).fit(images[:20])
    before, state = dict(vars(detector)), pickle.dumps(detector)
    bad = [
        images[:5, :6],
        np.full((3, 8, 8), np.nan),
        np.zeros((0, 8, 8)),
        np.zeros((4, 8, 8, 3), np.float32),
    ]
    for X in bad:
        with pytest.raises(ValueError):
            detector.partial_fit(X)
    detector.set_params(batch_size=0)
    with pytest.raises(ValueError, match="'batch_size' parameter"):
        detector.partial_fit(images[20:])
    detector.set_params(batch_size=10)

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cls, "_maxima_and_scores", interrupted)
        with pytest.raises(KeyboardInterrupt):
            detector.partial_fit(images[20:])
    assert vars(detector) == before
    assert pickle.dumps(detector) == state
    detector.partial_fit(images[20:])
    assert detector.n_samples_seen_ == 40


@every_class
def test_columns_are_those_of_the_first_call(cls, images):
    table = pd.DataFrame(images.reshape(40, 64)).add_prefix("p")
    detector = quick(cls, image_shape=(8, 8)).partial_fit(table[:20])
    detector.partial_fit(table[20:])
    assert detector.n_samples_seen_ == 40
    with pytest.raises(ValueError, match="feature names should match"):
        detector.partial_fit(table[table.columns[::-1]])
    with pytest.raises(ValueError, match="X has 63 features"):
        quick(cls, image_shape=(1, -1), image_size=8).partial_fit(
            images.reshape(40, 64)
        ).partial_fit(images.reshape(40, 64)[:, 1:])


@every_class
def test_labels_of_anomalies_warn_in_every_call(cls, images):
    detector = quick(cls).partial_fit(images[:20], np.ones(20))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        detector.partial_fit(images[20:25], np.ones(5))
    with pytest.warns(UserWarning, match="y labels 2 of 4 training images") as seen:
        detector.partial_fit(images[30:34], [1, -1, -1, 1])
    assert seen[0].filename == __file__


@every_class
def test_clones_and_unfitted_detectors_have_seen_nothing(cls, images):
    detector = quick(cls).partial_fit(images)
    with pytest.raises(NotFittedError):
        clone(detector).score_samples(images)
    assert not hasattr(clone(detector), "n_samples_seen_")


@every_class
def test_what_a_search_needs_is_made_again(cls, images, others):
    """Found by a search by hand in the bank as it is now."""
    detector = make(cls).fit(images[:20])
    before = detector.anomaly_map(others)
    detector.partial_fit(images[20:])
    assert (detector.anomaly_map(others) <= before).all()
    for bank in banks_of(detector):
        queries = tensor_view(bank.vectors)[::7] + 0.01
        search = bank.on(queries.device, "exact")
        found, _ = search.nearest(queries, queries.new_full((len(queries),), -1).int(), 1)
        np.testing.assert_array_equal(found, nearest(queries, tensor_view(bank.vectors))[0])


@every_class
def test_a_score_of_ones_own_keeps_the_earlier_scores(cls, images):
    class Own(cls):
        def _score(self, images, device):
            return skocc.base.Scores(2 * super()._score(images, device).scores)

    vars_of = quick(cls).get_params()
    detector = Own(**vars_of).fit(images[:30])
    scores = detector.train_scores_
    detector.partial_fit(images[30:])
    np.testing.assert_array_equal(detector.train_scores_[:30], scores)
    assert len(detector.train_map_maxima_) == len(detector.train_scores_) == 40
    np.testing.assert_array_equal(
        detector.score_samples(images[30:]), detector.train_scores_[30:]
    )


@every_class
def test_callbacks_are_told_of_every_call(cls, images):
    detector = quick(cls)
    if not hasattr(detector, "set_callbacks"):
        pytest.skip("scikit-learn has no callbacks before 1.9")
    callback = Counting()
    detector.set_callbacks(callback)
    detector.partial_fit(images[:20]).partial_fit(images[20:])
    assert (callback.n_setups, callback.n_teardowns) == (2, 2)


class Counting:
    """A callback that counts the calls."""

    def __init__(self):
        self.n_setups = self.n_teardowns = 0

    def setup(self, *args, **kwargs):
        self.n_setups += 1

    def teardown(self, *args, **kwargs):
        self.n_teardowns += 1

    def on_fit_task_begin(self, *args, **kwargs):
        pass

    def on_fit_task_end(self, *args, **kwargs):
        pass


@every_class
def test_other_parameters_between_calls(cls, images):
    """A smaller or larger budget, and fewer turns, hold from the next call on."""
    limit = LIMITS[cls.__name__]
    detector = make(cls).fit(images[:20]).set_params(max_bank_bytes=limit)
    detector.partial_fit(images[20:30])
    n = sum(bank.vectors.nbytes for bank in banks_of(detector))
    assert n <= limit
    detector.set_params(max_bank_bytes=None).partial_fit(images[30:])
    assert sum(bank.vectors.nbytes for bank in banks_of(detector)) > n
    if "bank_rotations" in detector.get_params():
        for first, later in [(4, 1), (1, 4)]:
            detector = make(cls, bank_rotations=first).fit(images[:20])
            scores = detector.train_scores_
            detector.set_params(bank_rotations=later).partial_fit(images[20:])
            n_each = np.bincount(detector.bank_.images)
            assert n_each[0] * later == n_each[-1] * first
            # They can no longer be told from the bank.
            np.testing.assert_array_equal(detector.train_scores_[:20], scores)
