"""Signals end a run at its next step."""

import os
import signal
import threading
import time

import pytest
from ignite.engine import Events
from monai.engines import SupervisedEvaluator
from stand_in import StandIn, make_dataset, make_optimizer, make_trainer
from tiny_training import assert_equal, checkpoint_of, make_run

from mrn_components import FaultReportHandler, InterruptHandler, PhaseValidationHandler
from mrn_components.training.handlers import faults

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT)


def send(number, to=0):
    return lambda _: os.kill(to or os.getpid(), number)


def interrupted(*handlers, workers=0, evaluator=None):
    network = StandIn()
    handlers = [*handlers, InterruptHandler(evaluator=evaluator)]
    trainer = make_trainer(network, make_optimizer(network), handlers, epochs=3, workers=workers)
    return trainer


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_lets_the_step_end(number, caplog):
    trainer = interrupted()
    earlier = signal.getsignal(number)
    steps = []
    trainer.add_event_handler(Events.ITERATION_STARTED(once=3), send(number))
    trainer.add_event_handler(Events.GET_BATCH_STARTED, lambda e: steps.append(e.state.iteration))
    with pytest.raises(SystemExit) as caught:
        trainer.run()
    assert caught.value.code == (130 if number == signal.SIGINT else 143)
    assert trainer.state.iteration == 3
    assert steps == [0, 1, 2]  # none begun after it
    assert f"Stopped by {number.name} in epoch 2 of 3." in caplog.text
    assert signal.getsignal(number) is earlier


def test_a_second_signal_acts_at_once():
    trainer = interrupted()

    @trainer.on(Events.ITERATION_STARTED(once=3))
    def press_twice(engine):
        send(signal.SIGINT)(engine)
        send(signal.SIGINT)(engine)
        pytest.fail("the second Ctrl-C must interrupt the step")

    with pytest.raises(KeyboardInterrupt):
        trainer.run()


def test_a_step_that_does_not_end_is_not_waited_for(monkeypatch, caplog):
    codes = []
    monkeypatch.setattr(faults, "_PATIENCE_S", 0.05)
    monkeypatch.setattr(faults.os, "_exit", codes.append)
    trainer = interrupted()
    trainer.add_event_handler(Events.ITERATION_STARTED(once=3), send(signal.SIGTERM))
    trainer.add_event_handler(Events.ITERATION_STARTED(once=3), lambda _: time.sleep(0.5))
    with pytest.raises(SystemExit):
        trainer.run()
    assert codes == [143]
    assert "Stopped by SIGTERM in epoch 2 of 3." in caplog.text


def test_a_step_that_ends_is_not_ended_later():
    handler, network = InterruptHandler(), StandIn()
    trainer = make_trainer(network, make_optimizer(network), [handler], epochs=3)
    trainer.add_event_handler(Events.ITERATION_STARTED(once=3), send(signal.SIGTERM))
    with pytest.raises(SystemExit):
        trainer.run()
    handler._patience.join(5)
    assert not handler._patience.is_alive()


@pytest.mark.parametrize("others", [[], [FaultReportHandler()]])
def test_a_step_that_raises_after_a_signal_is_not_ended_later(others, monkeypatch):
    codes = []
    monkeypatch.setattr(faults, "_PATIENCE_S", 0.2)
    monkeypatch.setattr(faults.os, "_exit", codes.append)
    earlier = [signal.getsignal(number) for number in SIGNALS]
    handler, network = InterruptHandler(), StandIn()
    trainer = make_trainer(network, make_optimizer(network), [handler, *others], epochs=3)
    trainer.add_event_handler(Events.ITERATION_STARTED(once=3), send(signal.SIGTERM))
    trainer.add_event_handler(Events.ITERATION_STARTED(once=3), lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):  # and not dropped
        trainer.run()
    handler._patience.join(5)
    assert codes == []
    assert [signal.getsignal(number) for number in SIGNALS] == earlier


class Stalled:
    """Its workers give nothing, as when the shared memory is full."""

    def __len__(self):
        return 8

    def __getitem__(self, index):
        time.sleep(60)


def wait_for_ever():
    faults._PATIENCE_S = 1.0
    network = StandIn()
    handlers = [InterruptHandler()]
    trainer = make_trainer(
        network, make_optimizer(network), handlers, epochs=1, dataset=Stalled(), workers=1
    )
    threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGTERM)).start()
    trainer.run()


def test_one_signal_ends_a_run_whose_loader_is_stalled(forks):
    begun = time.monotonic()
    assert forks.end(forks.start(wait_for_ever)) == 143
    assert time.monotonic() - begun < 50  # before the loader gives anything


def test_a_validation_is_stopped_too():
    network = StandIn()
    evaluator = SupervisedEvaluator("cpu", list(range(5)), network)
    evaluator._process_function = lambda *_: {}
    evaluator.add_event_handler(Events.ITERATION_STARTED(once=2), send(signal.SIGTERM))
    trainer = interrupted(PhaseValidationHandler(validator=evaluator), evaluator=evaluator)
    with pytest.raises(SystemExit):
        trainer.run()
    assert (trainer.state.epoch, evaluator.state.iteration) == (1, 2)


def test_workers_ignore_what_a_cluster_sends_to_all():
    class Dataset:
        data = make_dataset()

        def __len__(self):
            return 8

        def __getitem__(self, index):
            for number in SIGNALS:
                assert signal.getsignal(number) == signal.SIG_IGN
            return self.data[index]

    network = StandIn()
    trainer = make_trainer(
        network,
        make_optimizer(network),
        [InterruptHandler()],
        epochs=1,
        dataset=Dataset(),
        workers=2,
    )
    trainer.run()
    assert trainer.state.iteration == 2


def test_a_stopped_run_goes_on_to_the_same_end(tmp_path):
    make_run(tmp_path / "whole")[0].run()
    trainer, *_ = make_run(tmp_path / "cut")
    InterruptHandler().attach(trainer)
    trainer.add_event_handler(Events.ITERATION_STARTED(once=5), send(signal.SIGTERM))
    with pytest.raises(SystemExit):
        trainer.run()
    make_run(tmp_path / "cut", resume=True)[0].run()
    assert_equal(checkpoint_of(tmp_path / "cut", 4), checkpoint_of(tmp_path / "whole", 4))
