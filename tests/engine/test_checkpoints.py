import errno
import os
import tempfile
from functools import partial

import numpy as np
import pytest
import torch

from skocc._engine import checkpoints
from skocc._engine.batches import ImageBatches
from skocc._engine.checkpoints import Checkpoint
from skocc._engine.seeding import seeded
from skocc._engine.training import EarlyStopping, EpochWatcher, train

IMAGES = np.random.default_rng(0).random((11, 4, 4, 1)).astype(np.float32)
CPU = torch.device("cpu")


class Source:
    n_ahead = 0
    shape, dtype = IMAGES.shape, IMAGES.dtype

    def __len__(self):
        return len(IMAGES)

    def load(self, indices):
        return IMAGES[indices].copy()


class Killed(Exception):
    """What no part of the code expects."""


def fit(
    path=None, n_epochs=7, kill_at=None, every=1, seed=0, n_iter_no_change=None,
    weight_average=None, watcher=None, **identity,
):  # fmt: skip
    """Train a net with dropout, shuffled batches, a schedule, validation or averages."""
    how = path, n_epochs, kill_at, every, n_iter_no_change, weight_average, watcher
    with seeded(seed, CPU) as generator:
        return fit_within(generator, *how, identity)


def fit_within(
    generator, path, n_epochs, kill_at, every, n_iter_no_change, weight_average, watcher,
    identity,
):  # fmt: skip
    network = torch.nn.Sequential(
        torch.nn.Flatten(),
        torch.nn.Linear(16, 8),
        torch.nn.BatchNorm1d(8),
        torch.nn.Dropout(),
        torch.nn.Linear(8, 16),
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=0.05)
    n_steps = 0

    def loss_fn(batch):
        nonlocal n_steps
        n_steps += network.training
        if n_steps == kill_at:
            raise Killed
        return (network(batch) - batch.flatten(1)).square().mean()

    checkpoint = path and Checkpoint(path, identity, every, generator)
    validation_batches = ImageBatches(Source(), 4, device=CPU)
    early_stopping = EarlyStopping(validation_batches, n_iter_no_change)
    history = train(
        network,
        loss_fn,
        ImageBatches(Source(), 4, device=CPU, generator=generator),
        optimizer=optimizer,
        n_epochs=n_epochs,
        scheduler=torch.optim.lr_scheduler.StepLR(optimizer, 2),
        stopping=early_stopping if weight_average is None else None,
        weight_average=weight_average,
        checkpoint=checkpoint,
        watcher=watcher,
    )
    return network.state_dict(), history, n_steps


def assert_same(first, second):
    for key, value in first[0].items():
        assert torch.equal(value, second[0][key]), key
    assert first[1] == second[1]


def test_resumed_training_goes_on_with_its_averages(tmp_path):
    whole = fit(weight_average=0.9)
    with pytest.raises(Killed):
        fit(tmp_path / "state.pt", kill_at=11, weight_average=0.9)
    assert_same(fit(tmp_path / "state.pt", seed=1, weight_average=0.9), whole)


# Three steps an epoch: step 11 is in the middle of the fourth epoch.
@pytest.mark.parametrize(("every", "n_kept"), [(1, 3), (2, 2), (5, 0)])
def test_resumed_training_equals_an_unbroken_one(tmp_path, every, n_kept):
    path = tmp_path / "new" / "state.pt"
    whole = fit()
    with pytest.raises(Killed):
        fit(path, kill_at=11, every=every)
    assert path.exists() == (n_kept > 0)
    # What the second run starts with is of no influence.
    resumed = fit(path, every=every, seed=0 if n_kept == 0 else 1)
    assert_same(resumed, whole)
    assert resumed[2] == whole[2] - 3 * n_kept
    assert [file.name for file in path.parent.iterdir()] == ["state.pt"]


def test_finished_training_is_read_and_can_be_prolonged(tmp_path):
    path = tmp_path / "state.pt"
    first = fit(path, n_epochs=4, every=3)
    again = fit(path, n_epochs=4, every=3, seed=1)
    assert_same(again, first)
    assert again[2] == 0
    assert_same(fit(path, seed=1), fit())
    with pytest.raises(ValueError, match=r"has 7 epochs. Got n_epochs=6. Set n_epochs=7"):
        fit(path, n_epochs=6)


def test_early_stop_is_remembered(tmp_path):
    path = tmp_path / "state.pt"
    whole = fit(n_epochs=60, n_iter_no_change=2)
    assert len(whole[1].loss_curve) < 60
    assert_same(fit(path, n_epochs=60, n_iter_no_change=2, every=4), whole)
    again = fit(path, n_epochs=60, n_iter_no_change=2, every=4, seed=1)
    assert_same(again, whole)
    assert again[2] == 0


def test_checkpoint_of_another_training_is_an_error(tmp_path):
    path = tmp_path / "state.pt"
    fit(path, n_epochs=1, rate=0.1, data="a")
    with pytest.raises(
        ValueError, match=r"another training: data='a' in the file, 'b' here\. To"
    ):
        fit(path, n_epochs=2, rate=0.1, data="b")
    with pytest.raises(ValueError, match=r"rate=0.1 in the file, None here"):
        fit(path, n_epochs=2, data="a")
    fit(path, n_epochs=2, rate=0.1, data="a")


def test_file_that_is_no_checkpoint(tmp_path):
    path = tmp_path / "state.pt"
    path.write_bytes(b"pixels")
    with pytest.raises(ValueError, match=r"state.pt' cannot be read: .*Remove the file"):
        fit(path)
    torch.save({"weights": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match="cannot be read"):
        fit(path)


def damaged(change):
    """Return a function that changes the content of a checkpoint in place."""

    def damage(path):
        content = torch.load(path, weights_only=True)
        change(content)
        torch.save(content, path)

    return damage


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def set_history(index, value):
    def change(content):
        history = list(content["history"])
        history[index] = value
        content["history"] = tuple(history)

    return damaged(change)


@pytest.mark.parametrize(
    "damage",
    [
        cut,
        damaged(lambda c: c.pop("states")),
        damaged(lambda c: c.update(identity=3)),
        damaged(lambda c: c["states"].pop("optimizer")),
        damaged(lambda c: c["states"]["module"].pop("1.weight")),
        damaged(lambda c: c["states"]["module"].update({"1.weight": torch.ones(3)})),
        damaged(lambda c: c["states"]["module"].update({"1.weight": "heavy"})),
        damaged(lambda c: c["states"]["optimizer"]["param_groups"][0].update(lr="fast")),
        damaged(lambda c: c["states"]["optimizer"]["state"][0].update(exp_avg=1)),
        damaged(lambda c: c["states"]["optimizer"]["state"].update({99: {"step": 1}})),
        damaged(lambda c: c["states"]["scheduler"].update(last_epoch=[])),
        damaged(lambda c: c["random_states"].pop("cpu")),
        damaged(lambda c: c["random_states"].update(generator=torch.zeros(3))),
        damaged(lambda c: c.update(history=None)),
        set_history(0, "low"),
        set_history(0, [0.1, "low"]),
        set_history(1, []),
        set_history(2, 7),
        set_history(3, 10**6),
        set_history(3, "first"),
        set_history(4, {}),
    ],
)
def test_damaged_checkpoint_is_one_error(tmp_path, damage):
    path = tmp_path / "state.pt"
    fit(path, n_epochs=2)
    damage(path)
    with pytest.raises(ValueError, match=r"state.pt' cannot be read: .*Remove the file"):
        fit(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_pipes_and_folders_are_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(ValueError, match="cannot be read: it is not a regular file"):
            fit(path)


def test_interrupt_leaves_the_last_whole_epoch(tmp_path, monkeypatch):
    path = tmp_path / "state.pt"
    step, n_steps = torch.optim.Adam.step, 0

    def interrupted(self, *args, **kwargs):
        nonlocal n_steps
        n_steps += 1
        if n_steps == 8:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.Adam, "step", interrupted)
        with pytest.warns(UserWarning, match="ends after 2 of 7 epochs"):
            fit(path)
    assert_same(fit(path, seed=1), fit())


def test_a_watcher_that_ends_the_training_ends_it_when_it_is_resumed(tmp_path):
    class Ending(EpochWatcher):
        def end(self, module, history):
            return len(history.loss_curve) == 3

    ended = fit(tmp_path / "state.pt", every=2, watcher=Ending())
    assert len(ended[1].loss_curve) == 3
    again = fit(tmp_path / "state.pt", every=2, seed=1)
    assert_same(again, ended)
    assert again[2] == 0
    # More epochs may be asked for.
    assert_same(fit(tmp_path / "state.pt", n_epochs=9, seed=1), fit(n_epochs=9))


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no /dev/full")
def test_a_full_disk_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "state.pt"
    fit(path, n_epochs=2)
    content = path.read_bytes()
    with monkeypatch.context() as patch:
        full = partial(open, "/dev/full", "wb")
        patch.setattr(checkpoints, "open", lambda *args: full(), raising=False)
        with pytest.raises(
            OSError, match=r"No space left.*existing file is unch"
        ) as raised:
            fit(path, n_epochs=4)
    assert raised.value.errno == errno.ENOSPC
    assert raised.value.filename == str(path)
    assert path.read_bytes() == content
    assert [file.name for file in tmp_path.iterdir()] == ["state.pt"]
    assert_same(fit(path, seed=1), fit())


def test_a_read_only_folder_is_an_error_before_training(tmp_path, monkeypatch):
    folder = tmp_path / "folder"
    fit(folder / "state.pt", n_epochs=2)
    content = (folder / "state.pt").read_bytes()
    refusal = PermissionError(errno.EACCES, "Permission denied")

    def refuse(*args, **kwargs):
        raise refusal

    if os.geteuid() == 0:  # who may write to it
        monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    else:
        folder.chmod(0o500)
    with pytest.raises(
        PermissionError, match=r"cannot be written\. Name another"
    ) as raised:
        fit(folder / "state.pt", kill_at=1)
    assert raised.value.filename == str(folder)
    # What needs no writing needs no permission.
    assert fit(folder / "state.pt", n_epochs=2)[2] == 0
    monkeypatch.undo()
    folder.chmod(0o700)
    assert (folder / "state.pt").read_bytes() == content
