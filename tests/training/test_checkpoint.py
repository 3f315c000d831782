import math
import os
import pickle
import random
import re
import resource
import signal
import subprocess
import time
from collections import namedtuple

import pytest
import torch
from ignite.engine import Events
from monai.bundle import ConfigParser
from stand_in import (
    StandIn,
    make_optimizer,
    make_trainer,
)
from tiny_training import (
    assert_equal,
    checkpoint_of,
    files,
    make_run,
)

from mrn_components import (
    KeptWeights,
    RunCheckpointHandler,
)
from mrn_components.data.weight_records import KEPT_WEIGHTS, read_record
from mrn_components.system.errors import DamagedFileError, ResourceError
from mrn_components.system.files import digest_path
from mrn_components.training.handlers import checkpoint


@pytest.fixture(autouse=True)
def one_thread():
    """The child that is killed has one thread, and sums depend on their number."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# ---- resuming


@pytest.mark.parametrize(
    ("workers", "cut", "keep"),
    [
        (0, 1, "least_loss"),
        (0, 2, "last"),
        (0, 3, "mean"),
        (0, 3, "teacher"),
        (2, 2, "best_metric"),
    ],
)
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, workers, cut, keep):
    options = {"workers": workers, "keep": keep}
    trainer, handlers, _ = make_run(tmp_path / "whole", **options)
    trainer.run()
    stopped = make_run(tmp_path / "cut", **options)[0]
    stopped.add_event_handler(Events.EPOCH_COMPLETED(once=cut), stopped.terminate)
    stopped.run()
    resumed, resumed_handlers, _ = make_run(tmp_path / "cut", resume=True, **options)
    resumed.run()
    for name in ("model.pt", "model_last.pt"):
        assert_equal(torch.load(tmp_path / "cut" / name), torch.load(tmp_path / "whole" / name))

    assert resumed_handlers["losses"].values == handlers["losses"].values[2 * cut :]
    assert (resumed.state.epoch, resumed.state.iteration) == (4, 8)
    for epoch in (3, 4):
        assert_equal(
            checkpoint_of(tmp_path / "cut", epoch), checkpoint_of(tmp_path / "whole", epoch)
        )


@pytest.mark.parametrize("cut", [1, 2, 3])
@pytest.mark.parametrize("keep", ["least_loss", "last", "mean", "teacher", "best_metric"])
def test_weights_that_a_kill_left_unwritten_are_written_by_resuming(tmp_path, keep, cut):
    """A checkpoint is written first: at any moment there is one, or nothing."""
    stopped = make_run(tmp_path, keep=keep)[0]
    stopped.add_event_handler(Events.EPOCH_COMPLETED(once=cut), stopped.terminate)
    stopped.run()
    names = ("model.pt", "model_last.pt")
    weights = {name: torch.load(tmp_path / name) for name in names}
    record = read_record(tmp_path / "model.pt", KEPT_WEIGHTS)
    unwritten = names if record["epoch"] == cut else names[1:]
    for name in unwritten:
        (tmp_path / name).unlink()
    resumed = make_run(tmp_path, keep=keep, resume=True)[0]
    resumed.add_event_handler(Events.EPOCH_STARTED, resumed.terminate)
    resumed.add_event_handler(Events.ITERATION_COMPLETED, lambda _: pytest.fail("it trained"))
    found = {}

    @resumed.on(Events.EPOCH_STARTED)
    def look(_):
        found.update({name: torch.load(tmp_path / name) for name in names})
        found["record"] = read_record(tmp_path / "model.pt", KEPT_WEIGHTS)

    resumed.run()
    assert_equal(found, {**weights, "record": record})


def test_a_checkpoint_comes_before_any_weights(tmp_path, monkeypatch):
    written = []
    write = RunCheckpointHandler._write
    monkeypatch.setattr(
        RunCheckpointHandler,
        "_write",
        lambda self, content, path, *rest: (
            written.append(path.name),
            write(self, content, path, *rest),
        ),
    )
    make_run(tmp_path, epochs=4, interval=4)[0].run()
    assert written[0].startswith("epoch_")
    assert written[1] == "model.pt"


def train_and_die(directory, moment):
    torch.set_num_threads(1)
    trainer, *_ = make_run(directory)

    def die(*_):
        os.kill(os.getpid(), signal.SIGKILL)

    if moment == "mid-epoch":
        trainer.add_event_handler(Events.ITERATION_COMPLETED(once=6), die)
    else:
        save = torch.save

        def save_half(content, file):
            save(content, file)
            if trainer.state.epoch == 3 and "optimizer" in content:
                file.truncate(file.tell() // 2)
                die()

        checkpoint.torch.save = save_half
    trainer.run()


@pytest.mark.parametrize("moment", ["mid-epoch", "mid-save"])
def test_a_killed_run_goes_on_from_its_last_complete_epoch(tmp_path, forks, moment):
    make_run(tmp_path / "whole")[0].run()
    process = forks.start(train_and_die, tmp_path / "killed", moment)
    assert forks.end(process) == -signal.SIGKILL

    trainer, handlers, _ = make_run(tmp_path / "killed", resume=True)
    trainer.run()
    assert len(handlers["losses"].values) == 4  # epochs 3 and 4
    assert_equal(checkpoint_of(tmp_path / "killed", 4), checkpoint_of(tmp_path / "whole", 4))
    assert files(tmp_path / "killed") == files(tmp_path / "whole")


def train_on(directory):
    torch.set_num_threads(1)
    resume = any((directory / "checkpoints").glob("*.pt"))
    make_run(directory, epochs=10**6, resume=resume, width=60)[0].run()


@pytest.mark.parametrize("kills", [5, pytest.param(50, marks=pytest.mark.slow)])
def test_kills_at_random_leave_a_run_that_goes_on(tmp_path, caplog, forks, kills):
    """SIGKILL of a run that does little but write; each next one goes on from what is there."""
    draw = random.Random(1)
    reached = [0]
    for _ in range(kills):
        process = forks.start(train_on, tmp_path)
        while last_epoch(tmp_path) <= reached[-1]:
            time.sleep(0.001)
        time.sleep(draw.uniform(0, 0.05))
        os.kill(process, signal.SIGKILL)
        assert forks.end(process) == -signal.SIGKILL
        reached.append(last_epoch(tmp_path))
    assert reached == sorted(set(reached))
    trainer, *_ = make_run(tmp_path, epochs=reached[-1], resume=True, width=60)
    trainer.run()
    assert trainer.state.epoch == reached[-1]  # the newest one was whole
    assert "damaged" not in caplog.text
    assert not list(tmp_path.rglob(".unfinished*"))


def last_epoch(directory):
    paths = (directory / "checkpoints").glob("epoch_*.pt")
    return max((int(path.stem.removeprefix("epoch_")) for path in paths), default=0)


@pytest.mark.parametrize("damage", [b"", b"not a checkpoint", pickle.dumps(os.system, 2), "half"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path, caplog, damage):
    make_run(tmp_path)[0].run()
    newest = tmp_path / "checkpoints/epoch_0004.pt"
    content = newest.read_bytes()
    newest.write_bytes(content[: len(content) // 2] if damage == "half" else damage)
    trainer, handlers, _ = make_run(tmp_path, resume=True)
    trainer.run()
    assert len(handlers["losses"].values) == 2  # epoch 4 again
    assert re.search(r"epoch_0004.pt is damaged \([\w -]+\): falling back", caplog.text)
    assert checkpoint_of(tmp_path, 4)["epoch"] == 4


def test_a_flipped_bit_falls_back_to_the_checkpoint_before(tmp_path, caplog):
    make_run(tmp_path)[0].run()
    newest = tmp_path / "checkpoints/epoch_0004.pt"
    content = bytearray(newest.read_bytes())
    at = content.index(checkpoint_of(tmp_path, 4)["network"]["encoder.0.weight"].numpy().tobytes())
    content[at] ^= 1
    newest.write_bytes(content)
    torch.load(newest, weights_only=True)  # torch sees nothing
    trainer, handlers, _ = make_run(tmp_path, resume=True)
    trainer.run()
    assert len(handlers["losses"].values) == 2  # epoch 4 again
    assert "epoch_0004.pt is damaged (SHA-256 mismatch): falling back" in caplog.text


def test_a_finished_run_can_be_made_longer(tmp_path):
    make_run(tmp_path)[0].run()
    trainer, handlers, _ = make_run(tmp_path, resume=True)
    trainer.run()
    assert handlers["losses"].values == []
    trainer, handlers, _ = make_run(tmp_path, resume=True, epochs=5)
    trainer.run()
    assert len(handlers["losses"].values) == 2


# ---- files


@pytest.mark.parametrize(
    ("keep", "epochs", "expected"),
    [
        ("least_loss", 6, {"epoch": 6, "value": 0.2, "chosen_on_validation": True}),
        ("least_loss", 5, {"epoch": 4, "value": 0.3, "chosen_on_validation": True}),
        ("best_metric", 6, {"epoch": 4, "value": 0.9, "chosen_on_validation": True}),
        ("last", 5, {"epoch": 5, "value": None, "chosen_on_validation": False}),
    ],
)
def test_the_kept_weights_are_those_of_the_rule_and_say_so(tmp_path, keep, epochs, expected):
    weights = {}
    trainer, _, evaluator = make_run(tmp_path, epochs=epochs, keep=keep)
    trainer.add_event_handler(
        Events.EPOCH_COMPLETED,
        lambda engine: weights.update(
            {engine.state.epoch: {k: v.clone() for k, v in engine.network.state_dict().items()}}
        ),
    )
    trainer.run()
    assert files(tmp_path) == [
        f"checkpoints/epoch_{epochs - 1:04d}.pt",
        f"checkpoints/epoch_{epochs:04d}.pt",
        "model.pt",
        "model_last.pt",
    ]
    assert evaluator.state.best_metric_epoch == 4  # of two equal ones the first; it is shown
    kept = dict(torch.load(tmp_path / "model.pt", weights_only=True))
    assert_equal(kept, weights[expected["epoch"]])
    assert_equal(dict(torch.load(tmp_path / "model_last.pt", weights_only=True)), weights[epochs])
    assert read_record(tmp_path / "model.pt", KEPT_WEIGHTS) == {"rule": keep, **expected}
    assert read_record(tmp_path / "model_last.pt", KEPT_WEIGHTS) is None


@pytest.mark.parametrize("keep", ["mean", "teacher"])
def test_averages_are_those_of_the_weights_classifier_included(tmp_path, keep):
    """Of the last three epochs; or moving, 0.8 of it staying at a step."""
    trainer, *_ = make_run(tmp_path, epochs=6, keep=keep)
    ends, steps = [], []
    for event, weights in ((Events.EPOCH_COMPLETED, ends), (Events.ITERATION_COMPLETED, steps)):
        trainer.add_event_handler(
            event,
            lambda engine, to: to.append([p.detach().clone() for p in engine.network.parameters()]),
            weights,
        )
    trainer.run()
    if keep == "mean":
        expected = [torch.stack(each).mean(0) for each in zip(*ends[3:], strict=True)]
    else:
        expected = steps[0]
        for step in steps[1:]:
            expected = [0.8 * e + 0.2 * p for e, p in zip(expected, step, strict=True)]
    kept = torch.load(tmp_path / "model.pt", weights_only=True)
    for (name, _), value in zip(trainer.network.named_parameters(), expected, strict=True):
        torch.testing.assert_close(kept[name], value)
    assert not torch.equal(kept["classifier.weight"], trainer.network.classifier.weight)


def test_other_rules_are_refused_also_in_a_checkpoint_from_before_there_were_rules(tmp_path):
    make_run(tmp_path, keep="last")[0].run()
    with pytest.raises(ValueError, match=r"keeps weights by 'last', this run by 'mean'"):
        make_run(tmp_path, resume=True, keep="mean")[0].run()
    for path in (tmp_path / "checkpoints").glob("*.pt"):
        state = torch.load(path)
        state["best"] = state.pop("kept")["shown"]
        torch.save(state, path)
        digest_path(path).unlink()
    with pytest.raises(ValueError, match=r"keeps weights by 'best_metric', this run by 'last'"):
        make_run(tmp_path, resume=True, keep="last")[0].run()
    trainer, _, evaluator = make_run(tmp_path, resume=True, epochs=6, keep="best_metric")
    trainer.run()
    assert evaluator.state.best_metric_epoch == 4


def test_a_validation_without_a_loss_and_rules_that_are_none_say_what_to_type(tmp_path):
    trainer, _, evaluator = make_run(tmp_path)
    evaluator.add_event_handler(
        Events.COMPLETED, lambda engine: engine.state.metrics.pop("validation_loss")
    )
    with pytest.raises(ValueError, match=r"measures no 'validation_loss'; add .* --keep last"):
        trainer.run()
    with pytest.raises(ValueError, match=r"keep must be one of \['least_loss', .*, got 'best'"):
        KeptWeights(rule="best")
    with pytest.raises(ValueError, match=r"momentum in \[0, 1\) and num_epochs of .* 1 and 10"):
        KeptWeights(momentum=1)


def test_a_validation_loss_that_is_no_number_is_never_the_least(tmp_path):
    trainer, _, evaluator = make_run(tmp_path, epochs=6)

    def spoil(engine):
        if engine.state.epoch in (3, 6):
            engine.state.metrics["validation_loss"] = math.nan

    evaluator.add_event_handler(Events.COMPLETED, spoil)
    trainer.run()
    kept = read_record(tmp_path / "model.pt", KEPT_WEIGHTS)
    assert (kept["epoch"], kept["value"]) == (4, 0.3)


def test_resuming_remembers_the_best(tmp_path):
    make_run(tmp_path)[0].run()
    best = (tmp_path / "model.pt").read_bytes()
    trainer, _, evaluator = make_run(tmp_path, resume=True, epochs=5)
    trainer.run()
    assert (evaluator.state.best_metric, evaluator.state.best_metric_epoch) == (0.9, 4)
    assert (tmp_path / "model.pt").read_bytes() == best


def test_before_the_first_validation_the_last_is_the_best(tmp_path):
    make_run(tmp_path, epochs=2)[0].run()
    last = torch.load(tmp_path / "model_last.pt", weights_only=True)
    assert_equal(torch.load(tmp_path / "model.pt", weights_only=True), last)


def test_without_a_rule_the_last_is_kept(tmp_path):
    network = StandIn()
    for resume, epochs in ((False, 2), (True, 3)):
        saver = RunCheckpointHandler(directory=tmp_path, resume=resume)
        make_trainer(network, make_optimizer(network), [saver], epochs=epochs).run()
    assert_equal(torch.load(tmp_path / "model.pt"), dict(network.state_dict()))


def test_only_rank_0_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint.idist, "get_rank", lambda: 1)
    make_run(tmp_path / "none", epochs=1)[0].run()
    assert not (tmp_path / "none").exists()


def test_every_file_has_its_digest_as_sha256sum_reads_it(tmp_path):
    make_run(tmp_path)[0].run()
    for path in map(tmp_path.joinpath, files(tmp_path)):
        subprocess.run(["sha256sum", "-c", digest_path(path).name], cwd=path.parent, check=True)
    assert len(list(tmp_path.rglob("*.sha256"))) == 4


def test_checkpoints_before_there_were_digests_are_resumed(tmp_path):
    make_run(tmp_path)[0].run()
    for path in tmp_path.rglob("*.sha256"):
        path.unlink()
    for path in (tmp_path / "checkpoints").iterdir():
        state = torch.load(path)
        del state["processes"]
        torch.save(state, path)
    trainer, *_ = make_run(tmp_path, resume=True, epochs=5)
    trainer.run()
    assert trainer.state.iteration == 10


def test_interval_spaces_the_saves(tmp_path):
    make_run(tmp_path, epochs=5, interval=3)[0].run()
    assert files(tmp_path)[:2] == ["checkpoints/epoch_0003.pt", "checkpoints/epoch_0005.pt"]


def test_training_only_parts_stay_out_of_the_weights_but_not_of_the_checkpoint(tmp_path):
    network = StandIn()
    part = next(name for name, _ in network.named_children())
    saver = RunCheckpointHandler(directory=tmp_path, training_only=[part])
    make_trainer(network, make_optimizer(network), [saver], epochs=1).run()
    weights = torch.load(tmp_path / "model.pt", weights_only=True)
    state = torch.load(tmp_path / "checkpoints" / "epoch_0001.pt", weights_only=True)
    assert weights.keys() == {k for k in network.state_dict() if not k.startswith(f"{part}.")}
    assert state["network"].keys() == network.state_dict().keys()


# ---- refusals


def test_a_used_directory_is_refused(tmp_path):
    make_run(tmp_path, epochs=1)[0].run()
    with pytest.raises(FileExistsError, match=r"already holds a run \(epoch_0001.pt\); .*--resume"):
        make_run(tmp_path)[0].run()


def test_published_weights_are_not_overwritten(tmp_path):
    (tmp_path / "model.pt").write_bytes(b"published")
    with pytest.raises(FileExistsError, match=r"already holds a run \(model.pt\); .*--run_name"):
        make_run(tmp_path)[0].run()
    assert (tmp_path / "model.pt").read_bytes() == b"published"


def test_weights_without_a_checkpoint_are_told_alike(tmp_path):
    """Of a run that was killed in its first save, before 2026-11-26, or lost its checkpoints."""
    (tmp_path / "model.pt").write_bytes(b"published")
    for resume in (False, True):
        with pytest.raises(OSError, match=r"no checkpoint, .* --run_name NEW_NAME, or delete this"):
            make_run(tmp_path, resume=resume)[0].run()


def test_resuming_nothing_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no checkpoint to resume; name the run"):
        make_run(tmp_path / "none", resume=True)[0].run()
    assert not (tmp_path / "none").exists()


def test_resuming_only_damage_is_refused(tmp_path):
    make_run(tmp_path)[0].run()
    for path in (tmp_path / "checkpoints").iterdir():
        path.write_bytes(b"")
    with pytest.raises(DamagedFileError, match=r"none of the checkpoints in .* is undamaged; st"):
        make_run(tmp_path, resume=True)[0].run()


def test_a_run_cannot_become_shorter(tmp_path):
    make_run(tmp_path)[0].run()
    with pytest.raises(ValueError, match=r"saved after epoch 4, but .* epoch 3; raise --epochs"):
        make_run(tmp_path, resume=True, epochs=3)[0].run()


def test_other_handlers_are_refused(tmp_path):
    make_run(tmp_path)[0].run()
    with pytest.raises(ValueError, match=r"holds the states of the handlers \['msupmoco'\], this"):
        make_run(tmp_path, resume=True, contrast=False)[0].run()


def test_another_network_is_refused(tmp_path):
    make_run(tmp_path, epochs=1)[0].run()
    with pytest.raises(
        ValueError,
        match=r"epoch_0001.pt does not fit this run \(.*size mismatch for encoder.0.weight",
    ):
        make_run(tmp_path, resume=True, width=5)[0].run()


def test_another_number_of_processes_is_refused(tmp_path, monkeypatch):
    make_run(tmp_path)[0].run()
    monkeypatch.setattr(checkpoint.idist, "get_world_size", lambda: 2)
    with pytest.raises(ValueError, match=r"1 processes made .*, now there are 2.*changed proc"):
        make_run(tmp_path, resume=True)[0].run()
    make_run(tmp_path, resume=True, allow_changed=["processes"])[0].run()


def test_a_folder_is_claimed_before_anything_is_written(tmp_path):
    trainer, *_ = make_run(tmp_path, epochs=1)
    first = RunCheckpointHandler(directory=tmp_path)
    first.claim()
    first.claim()
    monkey = pytest.MonkeyPatch()
    monkey.setattr("mrn_components.system.files._PATIENCE_S", 0.1)
    with monkey.context(), pytest.raises(RuntimeError, match=r"in use by process \d+ on .*; wait"):
        RunCheckpointHandler(directory=tmp_path).claim()
    monkey.undo()
    del first  # its process ended
    trainer.run()
    with pytest.raises(FileExistsError, match="already holds a run"):
        RunCheckpointHandler(directory=tmp_path).claim()
    RunCheckpointHandler(directory=tmp_path, resume=True).claim()
    with pytest.raises(FileNotFoundError, match="holds no checkpoint to resume"):
        RunCheckpointHandler(directory=tmp_path / "none", resume=True).claim()
    assert not (tmp_path / "none").exists()


# ---- disks


def test_a_disk_without_room_is_refused_before_the_first_step(tmp_path, monkeypatch):
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda _: usage(1000))
    trainer, handlers, _ = make_run(tmp_path)
    with pytest.raises(ResourceError, match=r"has 9.31e-07 GiB of free disk; the run needs"):
        trainer.run()
    assert handlers["losses"].values == []
    assert files(tmp_path) == []


def test_the_room_that_is_asked_for_is_that_of_three_checkpoints(tmp_path, monkeypatch):
    make_run(tmp_path, epochs=3, width=60)[0].run()
    saved = (tmp_path / "checkpoints/epoch_0003.pt").stat().st_size
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda _: usage(0))
    with pytest.raises(ResourceError) as caught:
        make_run(tmp_path / "new", width=60)[0].run()
    asked = float(re.search(r"needs (\S+) for", str(caught.value))[1]) * 2**30
    assert 2.5 * saved < asked < 3.1 * saved


def test_a_disk_that_fills_up_keeps_the_checkpoint_before(tmp_path):
    """A limit on the size of files stands for the disk: the system's own error, in mid-write."""
    make_run(tmp_path, epochs=3)[0].run()
    before = {path: (tmp_path / path).read_bytes() for path in files(tmp_path)}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    trainer, *_ = make_run(tmp_path, resume=True)
    weights = (tmp_path / "model_last.pt").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (weights + 2000, limits[1]))
    try:
        with pytest.raises(ResourceError, match=r"epoch_0004.pt cannot be written \(File too"):
            trainer.run()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    after = files(tmp_path)
    assert after == sorted(before)  # nothing half written, nothing gone
    checkpoints = [path for path in after if path.startswith("checkpoints")]
    assert all((tmp_path / path).read_bytes() == before[path] for path in checkpoints)
    make_run(tmp_path / "whole")[0].run()
    make_run(tmp_path, resume=True)[0].run()
    assert_equal(checkpoint_of(tmp_path, 4), checkpoint_of(tmp_path / "whole", 4))


# ---- YAML


def test_the_config_block_has_no_circular_reference(tmp_path):
    parser = ConfigParser(
        {
            "network": {"_target_": "stand_in.StandIn"},
            "optimizer": {"_target_": "stand_in.make_optimizer", "network": "@network"},
            "dataset": {"_target_": "stand_in.make_dataset"},
            "loss": {"_target_": "mrn_components.MRNLoss"},
            "validate": {"evaluator": {"_target_": "tiny_training.make_evaluator"}},
            "train": {
                "handlers": {
                    "seed": {"_target_": "mrn_components.SeedHandler", "dataset": "@dataset"},
                    "phase": {
                        "_target_": "mrn_components.PretrainPhaseHandler",
                        "loss": "@loss",
                        "pretrain_epochs": 2,
                    },
                    "msupmoco": {
                        "_target_": "mrn_components.MSupMoCoHandler",
                        "network": "@network",
                        "bank_size": 5,
                    },
                    "validation": {
                        "_target_": "mrn_components.PhaseValidationHandler",
                        "validator": "@validate#evaluator",
                        "first_epoch": 3,
                    },
                },
                "checkpoint": {
                    "_target_": "mrn_components.RunCheckpointHandler",
                    "directory": str(tmp_path),
                    "handlers": "@train#handlers",
                    "keep": {
                        "_target_": "mrn_components.KeptWeights",
                        "evaluator": "@validate#evaluator",
                    },
                },
                "trainer": {
                    "_target_": "stand_in.make_trainer",
                    "network": "@network",
                    "optimizer": "@optimizer",
                    "loss": "@loss",
                    "dataset": "@dataset",
                    "epochs": 3,
                    "handlers": "$list(@train#handlers.values()) + [@train#checkpoint]",
                },
            },
        }
    )
    parser.get_parsed_content("train#trainer").run()
    assert list(checkpoint_of(tmp_path, 3)["handlers"]) == ["msupmoco"]
