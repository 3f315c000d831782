import logging
import random

import numpy as np
import pytest
import torch
from ignite.engine import Events
from ignite.utils import manual_seed
from monai.engines import SupervisedEvaluator
from monai.handlers import TensorBoardStatsHandler
from stand_in import StandIn, make_dataset, make_optimizer, make_trainer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_training import make_evaluator

from mrn_components import (
    EpochSummaryHandler,
    FiniteLossHandler,
    MRNLoss,
    MSupMoCoHandler,
    PhaseValidationHandler,
    PretrainPhaseHandler,
    SeedHandler,
    WarmupCosineHandler,
)


def trainer_with(*handlers, **options):
    network = StandIn()
    return make_trainer(network, make_optimizer(network), list(handlers), **options)


# ---- phases


def test_classification_joins_after_pretraining():
    loss = MRNLoss(cls_weight=0.7)
    trainer = trainer_with(PretrainPhaseHandler(loss=loss, pretrain_epochs=2), loss=loss, epochs=4)
    weights, moved = [], []

    @trainer.on(Events.ITERATION_COMPLETED)
    def note(engine):
        weights.append(loss.cls_weight)
        moved.append(engine.network.classifier.bias.grad is not None)

    trainer.run()
    assert weights == [0, 0, 0, 0, 0.7, 0.7, 0.7, 0.7]  # from the first step of the epoch on
    assert moved == [False] * 4 + [True] * 4


@pytest.mark.parametrize("contrast", [True, False])
def test_the_classifier_steps_like_that_of_a_fresh_optimiser_after_pretraining(contrast):
    """For 40 steps; with a gradient of zeros in 40 steps before it moves three times as far."""

    def way(fresh):
        manual_seed(3)
        network, loss = StandIn(), MRNLoss()
        optimizer = make_optimizer(network)
        head = list(network.classifier.parameters())
        start = [p.detach().clone() for p in head]
        handlers = [PretrainPhaseHandler(loss=loss, pretrain_epochs=20)]
        if contrast:
            handlers.append(MSupMoCoHandler(network=network, bank_size=5, projection_dim=8))
        trainer = make_trainer(network, optimizer, handlers, loss=loss, epochs=40)
        moved = []

        @trainer.on(Events.EPOCH_STARTED(once=21))
        def renew(_engine):
            with torch.no_grad():
                for parameter, value in zip(head, start, strict=True):
                    assert fresh or torch.equal(parameter, value)  # it did not decay
                    parameter.copy_(value)
                    if fresh:
                        optimizer.state.pop(parameter, None)

        @trainer.on(Events.ITERATION_COMPLETED)
        def note(_engine):
            moved.append(sum((p - s).square().sum() for p, s in zip(head, start, strict=True)))

        trainer.run()
        return torch.stack(moved[40:]).sqrt()

    expected = way(fresh=True)
    assert len(expected) == 40
    assert expected.min() > 0
    torch.testing.assert_close(way(fresh=False), expected, rtol=0.1, atol=0)


def test_a_gradient_of_zeros_counts_once_there_was_another():
    """AdamW goes on with the moments that it has."""
    loss = MRNLoss()
    trainer = trainer_with(PretrainPhaseHandler(loss=loss, pretrain_epochs=0), loss=loss, epochs=2)
    bias = trainer.network.classifier.bias
    trainer.add_event_handler(
        Events.EPOCH_STARTED(once=2), lambda _: setattr(trainer.loss_function, "cls_weight", 0.0)
    )
    trainer.run()
    assert trainer.optimizer.state[bias]["step"] == 4


@pytest.mark.parametrize(
    ("options", "validated"),
    [
        ({"first_epoch": 3}, [3, 4, 5, 6]),
        ({"first_epoch": 3, "interval": 2}, [3, 5, 6]),
        ({}, [1, 2, 3, 4, 5, 6]),
        ({"first_epoch": 7}, []),
    ],
)
def test_validation_begins_at_its_first_epoch(options, validated):
    evaluator = SupervisedEvaluator(torch.device("cpu"), [0], StandIn())
    epochs = []
    evaluator.run = epochs.append
    trainer_with(PhaseValidationHandler(validator=evaluator, **options), epochs=6).run()
    assert epochs == validated


# ---- seeds


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epochs_draws_follow_from_seed_and_epoch_alone(workers):
    def draws(first_epoch, seed=1):
        dataset = make_dataset()
        trainer = trainer_with(
            SeedHandler(dataset=dataset, seed=seed), dataset=dataset, workers=workers, epochs=3
        )
        seen = {}

        @trainer.on(Events.STARTED)
        def skip(engine):
            engine.state.epoch = first_epoch - 1
            engine.state.iteration = 2 * engine.state.epoch

        @trainer.on(Events.ITERATION_COMPLETED)
        def note(engine):
            batch = engine.state.batch
            seen.setdefault(engine.state.epoch, []).append(
                (batch["subject"], [crop.sum().item() for crop in batch["nm"]])
            )

        @trainer.on(Events.EPOCH_COMPLETED)
        def note_generators(engine):
            seen[engine.state.epoch].append(
                (torch.rand(1).item(), np.random.rand(), random.random())  # noqa: NPY002
            )

        trainer.run()
        return seen

    whole, later = draws(first_epoch=1), draws(first_epoch=3)
    assert whole[3] == later[3]
    assert whole[1] != whole[2] != whole[3]
    assert whole[1] != draws(first_epoch=1, seed=2)[1]


def test_persistent_workers_are_refused():
    dataset = make_dataset()
    trainer = trainer_with(SeedHandler(dataset=dataset), dataset=dataset)
    object.__setattr__(trainer.data_loader, "persistent_workers", True)
    with pytest.raises(ValueError, match="set persistent_workers to False"):
        trainer.run()


# ---- guard


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_before_the_step(value):
    dataset = make_dataset(augment=False)
    dataset.data[5]["nm"][0, 0, 0, 0] = value
    trainer = trainer_with(FiniteLossHandler(), dataset=dataset, shuffle=False)
    weights = []
    trainer.add_event_handler(
        Events.ITERATION_STARTED,
        lambda engine: weights.append([p.clone() for p in engine.network.parameters()]),
    )
    message = r"the loss is nan in epoch 1, iteration 2, for the subjects \['PHAN_004', 'PHAN_005'"
    with pytest.raises(FloatingPointError, match=message):
        trainer.run()
    assert len(weights) == 2
    assert all(map(torch.equal, weights[-1], trainer.network.parameters()))


def test_a_gradient_that_is_not_finite_stops_before_the_step():
    """The root of nothing is 0, its slope is infinite, and 0 x infinity is NaN."""

    class Loss(MRNLoss):
        def forward(self, *args):
            total = super().forward(*args)
            return total + (0 * total).sqrt()

    trainer = trainer_with(FiniteLossHandler(), loss=Loss())
    before = [p.clone() for p in trainer.network.parameters()]
    message = r"the norm of the gradients is nan in epoch 1, iteration 1, for the subjects \['PHAN"
    with pytest.raises(FloatingPointError, match=message):
        trainer.run()
    assert all(map(torch.equal, before, trainer.network.parameters()))


def test_the_guard_changes_no_number():
    ends = []
    for guard in ([], [FiniteLossHandler()]):
        torch.manual_seed(0)
        trainer = trainer_with(*guard)
        trainer.run()
        ends.append(list(trainer.network.parameters()))
    assert all(map(torch.equal, *ends))


# ---- curves


def test_epoch_summary_averages_terms_and_logs_a_line(caplog):
    loss = MRNLoss()
    totals = []
    trainer = trainer_with(EpochSummaryHandler(loss=loss), loss=loss, epochs=2)
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED, lambda engine: totals.append(engine.state.output["loss"].item())
    )
    with caplog.at_level(logging.INFO, logger="mrn_components"):
        trainer.run()
    metrics = trainer.state.metrics
    assert metrics["loss"] == pytest.approx(sum(totals[2:]) / 2)
    assert metrics["loss"] == pytest.approx(metrics["classification"] + metrics["segmentation"])
    assert (metrics["lr/encoder"], metrics["lr/heads"]) == (0.02, 0.04)
    start, first, second = (record.getMessage() for record in caplog.records)
    assert start == "Training on 8 subjects, 2 epochs of 2 steps; validation on 0"
    assert first.startswith("Epoch 1/2 training: loss ")
    assert second.endswith("0:00:00 left")


def test_a_validation_has_a_line_after_its_epochs_own(caplog):
    loss, evaluator = MRNLoss(), make_evaluator()
    handlers = [
        PhaseValidationHandler(validator=evaluator, first_epoch=3, interval=2),
        EpochSummaryHandler(loss=loss, evaluator=evaluator),
    ]
    with caplog.at_level(logging.INFO, logger="mrn_components"):
        trainer_with(*handlers, loss=loss, epochs=5).run()
    lines = [r.getMessage() for r in caplog.records if r.name.startswith("mrn_components")]
    assert lines[0].endswith("; validation on 2")
    assert [line.split(":")[0] for line in lines[1:]] == [
        *(f"Epoch {epoch}/5 training" for epoch in (1, 2, 3)),
        "Epoch 3/5 validation",
        *(f"Epoch {epoch}/5 training" for epoch in (4, 5)),
        "Epoch 5/5 validation",
    ]
    assert lines[4].endswith(": score 0.5000, validation_loss 0.7000; best score 0.5000 in epoch 3")


def test_every_curve_reaches_tensorboard(tmp_path):
    loss = MRNLoss()
    network = StandIn()
    handlers = [
        MSupMoCoHandler(network=network, bank_size=5, projection_dim=8),
        EpochSummaryHandler(loss=loss),
        board := TensorBoardStatsHandler(log_dir=str(tmp_path), iteration_log=False),
    ]
    make_trainer(network, make_optimizer(network), handlers, loss=loss, epochs=2).run()
    board.close()
    events = EventAccumulator(str(tmp_path)).Reload()
    assert sorted(events.Tags()["scalars"]) == [
        "bank_fill",
        "classification",
        "contrastive",
        "loss",
        "lr/encoder",
        "lr/heads",
        "lr/projector",
        "segmentation",
    ]
    assert [event.step for event in events.Scalars("contrastive")] == [1, 2]


# ---- schedule


def rates_of(trainer, network):
    rates = []
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED,
        lambda engine: rates.append([group["lr"] for group in engine.optimizer.param_groups]),
    )
    trainer.run()
    return rates


def test_rates_rise_then_fall_to_zero_for_the_projector_too():
    network = StandIn()
    optimizer = make_optimizer(network)
    full = optimizer.param_groups[-1]["lr"]
    contrast = MSupMoCoHandler(network=network, bank_size=4, projection_dim=4)
    handlers = [contrast, WarmupCosineHandler(warmup_steps=2)]
    trainer = make_trainer(network, optimizer, handlers, epochs=4)
    rates = rates_of(trainer, network)
    last = [rate[-2] for rate in rates]
    assert [rate[-1] for rate in rates] == last  # the projector's are those of the heads
    assert last[0] == pytest.approx(full / 2)
    assert max(last) <= full
    assert last[1:] == sorted(last[1:], reverse=True)
    assert last[-1] < 0.1 * full


def test_the_schedule_follows_from_the_iteration_alone():
    """A resumed run, whose optimiser comes back with falling rates, has those of a whole one."""
    whole = WarmupCosineHandler(warmup_steps=2)
    network = StandIn()
    optimizer = make_optimizer(network)
    expected = rates_of(make_trainer(network, optimizer, [whole], epochs=4), network)

    network = StandIn()
    optimizer = make_optimizer(network)
    trainer = make_trainer(network, optimizer, [WarmupCosineHandler(warmup_steps=2)], epochs=4)

    @trainer.on(Events.STARTED)
    def restore(engine):
        engine.state.epoch = 2
        engine.state.iteration = 2 * engine.state.epoch_length
        for group in engine.optimizer.param_groups:
            group["lr"] = 123.0

    assert rates_of(trainer, network) == expected[len(expected) // 2 :]


def test_a_schedule_without_warmup_is_refused():
    with pytest.raises(ValueError, match="warmup_steps must be at least 1, got 0; for constant"):
        WarmupCosineHandler(warmup_steps=0)
