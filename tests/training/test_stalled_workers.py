"""Workers of a data loader that have no room to hand over what they read, or are stalled."""

import shutil
from collections import namedtuple

import pytest
from stand_in import StandIn, make_dataset, make_optimizer, make_trainer

from mrn_components import FaultReportHandler
from mrn_components.system.errors import ResourceError
from mrn_components.training.handlers import workers as module

Usage = namedtuple("Usage", "total used free")


def trainer_of(workers, **options):
    network = StandIn()
    handlers = [FaultReportHandler()]
    options = {"epochs": 1, "workers": workers, **options}
    return make_trainer(network, make_optimizer(network), handlers, **options)


def with_free(monkeypatch, free):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, free))


def test_too_little_shared_memory_is_named_before_the_first_step(monkeypatch):
    with_free(monkeypatch, 1000)
    trainer = trainer_of(2)
    with pytest.raises(
        ResourceError,
        match=r"/dev/shm has 0.000954 MiB of free .* 2 workers .* --shm-size=8g .* --num_workers 0",
    ):
        trainer.run()
    assert trainer.state.iteration == 0


def test_what_is_needed_is_what_the_batches_take(monkeypatch):
    data = make_dataset()
    size = sum(x.nbytes for x in data[0].values() if hasattr(x, "nbytes"))
    for free, fits in ((16 * size, True), (16 * size - 1, False)):  # 2 workers, 2 batches of 4
        with_free(monkeypatch, free)
        trainer = trainer_of(2, dataset=data)
        if fits:
            trainer.run()
        else:
            with pytest.raises(ResourceError):
                trainer.run()


def test_the_main_process_needs_no_shared_memory(monkeypatch):
    with_free(monkeypatch, 0)
    trainer_of(0).run()


def test_a_stalled_worker_is_waited_for_a_while(monkeypatch):
    monkeypatch.setattr(module, "_PATIENCE_S", 1)

    class Stalled(list):
        def __getitem__(self, index):
            import time

            time.sleep(30)

    with pytest.raises(ResourceError, match=r"gave nothing for 1 seconds .* --num_workers 0"):
        trainer_of(1, dataset=Stalled(range(8))).run()
