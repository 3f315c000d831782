import random
from collections import deque

import pytest
import torch
from ignite.engine import Events
from ignite.utils import manual_seed
from monai.engines.utils import IterationEvents
from stand_in import (
    Losses,
    StandIn,
    collate,
    make_dataset,
    make_optimizer,
    make_trainer,
    prepare_batch,
)
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from mrn_components import (
    CategoryBank,
    MRNLoss,
    MSupMoCoHandler,
    ProjectionHead,
    SeedHandler,
)


def make_handler(network, **options):
    return MSupMoCoHandler(network=network, **{"bank_size": 5, "projection_dim": 8, **options})


def train(handlers=(), network=None, seed=3, **options):
    """Train a stand-in; return it and its trainer after the run."""
    manual_seed(seed)
    network = network or StandIn()
    handlers = [handler(network) for handler in handlers]
    trainer = make_trainer(network, make_optimizer(network), handlers, **options)
    trainer.run()
    return network, trainer, handlers


# ---- projector


def test_projector_is_a_two_layer_mlp_to_unit_length():
    projector = ProjectionHead(in_channels=12)
    embedding = projector(torch.randn(3, 12))
    assert embedding.shape == (3, 128)
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(3))
    assert [type(layer).__name__ for layer in projector] == ["Linear", "ReLU", "Linear"]


def test_projector_of_the_paper_has_9_8_million_parameters():
    with torch.device("meta"):
        projector = ProjectionHead(in_channels=4 * 768)
    assert sum(p.numel() for p in projector.parameters()) == 9_833_600


# ---- bank


@pytest.mark.parametrize("size", [1, 4, 7])
def test_bank_keeps_what_a_deque_keeps(size):
    rng = random.Random(size)
    bank = CategoryBank(size=size, channels=1)
    expected = [deque(maxlen=size), deque(maxlen=size)]
    stamp = 0
    for _ in range(60):
        count = rng.randint(0, 3 * size)  # none, a few, and more than there are slots
        labels = [rng.randint(0, 1) for _ in range(count)]
        stamps = [stamp := stamp + 1 for _ in range(count)]
        bank.enqueue(
            torch.tensor(stamps, dtype=torch.float).reshape(-1, 1),
            torch.tensor(labels, dtype=torch.int64),
        )
        for key, label in zip(stamps, labels, strict=True):
            expected[label].append(key)

        keys, key_labels = bank.contents()
        keys, key_labels = keys[key_labels >= 0], key_labels[key_labels >= 0]
        assert len(keys) == bank.counts.sum() == sum(map(len, expected))
        assert keys.all(), "a slot that was never written has come out"
        for label in (0, 1):
            ring = keys[key_labels == label].flatten().int().tolist()
            oldest = int(bank.written[label]) % size if len(ring) == size else 0
            assert ring[oldest:] + ring[:oldest] == list(expected[label])


def test_bank_refuses_bad_arguments():
    with pytest.raises(ValueError, match="bank size must be at least 1 key a class, got 0"):
        CategoryBank(size=0)
    with pytest.raises(ValueError, match=r"labels must be in \[0, 2\), got \[0, 2\]"):
        CategoryBank(size=2, channels=1).enqueue(torch.zeros(2, 1), torch.tensor([0, 2]))


# ---- teacher


def teacher_and_student(network, handler):
    student = dict(network.named_parameters())
    return [
        (teacher, student[name]) for name, teacher in handler.teacher["network"].named_parameters()
    ]


def test_teacher_has_neither_dpt_nor_classifier_and_never_trains():
    network = StandIn()
    handler = make_handler(network)
    names = {name.split(".")[0] for name, _ in handler.teacher["network"].named_parameters()}
    assert names == {"encoder"}
    assert not handler.teacher.training
    assert not any(p.requires_grad for p in handler.teacher.parameters())
    torch.testing.assert_close(
        handler.teacher["projector"].state_dict(), handler.projector.state_dict(), rtol=0, atol=0
    )


@pytest.mark.parametrize("momentum", [1.0, 0.0])
def test_momentum_1_stays_and_0_copies(momentum):
    network = StandIn()
    handler = make_handler(network, momentum=momentum)
    before = [teacher.clone() for teacher, _ in teacher_and_student(network, handler)]
    make_trainer(network, make_optimizer(network), [handler]).run()
    for (teacher, student), start in zip(
        teacher_and_student(network, handler), before, strict=True
    ):
        assert not torch.equal(student, start)
        assert torch.equal(teacher, start if momentum == 1 else student)


def test_teacher_follows_after_the_step_and_copies_buffers():
    network = StandIn()
    handler = make_handler(network, momentum=0.9)
    trainer = make_trainer(network, make_optimizer(network), [handler], epochs=1)
    seen = []

    @trainer.on(IterationEvents.BACKWARD_COMPLETED)
    def before_step(_):
        seen.append([teacher.clone() for teacher, _ in teacher_and_student(network, handler)])

    @trainer.on(Events.ITERATION_COMPLETED)
    def after_step(_):
        for (teacher, student), before in zip(
            teacher_and_student(network, handler), seen[-1], strict=True
        ):
            torch.testing.assert_close(teacher, 0.9 * before + 0.1 * student)

    trainer.run()
    assert len(seen) == 2
    assert handler.teacher["network"].calls == network.calls == 2


def test_teacher_waits_for_the_step_of_accumulated_gradients():
    network = StandIn()
    handler = make_handler(network, momentum=0.5)
    trainer = make_trainer(network, make_optimizer(network), [handler], epochs=1)
    trainer.accumulation_steps = 2
    start = [teacher.clone() for teacher, _ in teacher_and_student(network, handler)]

    @trainer.on(Events.ITERATION_COMPLETED(once=1))
    def no_step_yet(_):
        for (teacher, _), before in zip(teacher_and_student(network, handler), start, strict=True):
            assert torch.equal(teacher, before)

    trainer.run()
    for (teacher, student), before in zip(
        teacher_and_student(network, handler), start, strict=True
    ):
        torch.testing.assert_close(teacher, 0.5 * before + 0.5 * student)


def test_bad_options_are_refused():
    with pytest.raises(ValueError, match=r"min_fill must be in \[1, bank_size = 5\], got 6"):
        make_handler(StandIn(), min_fill=6)
    with pytest.raises(ValueError, match=r"momentum must be in \[0, 1\], got 1.5; the paper uses"):
        make_handler(StandIn(), momentum=1.5)
    with pytest.raises(ValueError, match=r"ramp_epochs must be 0 or more, got 0 and -1"):
        make_handler(StandIn(), ramp_epochs=-1)


# ---- handler


def test_loss_is_the_trainers_plus_weight_times_the_contrast_with_the_bank():
    network = StandIn()
    handler = make_handler(network, weight=0.3)
    loss = MRNLoss()
    trainer = make_trainer(network, make_optimizer(network), [handler], loss=loss, epochs=1)

    @trainer.on(Events.ITERATION_COMPLETED)
    def check(engine):
        output = engine.state.output
        base = loss.terms["classification"] + loss.terms["segmentation"]
        torch.testing.assert_close(output["loss"], base + 0.3 * output["contrastive"])
        assert output["contrastive"] > 0
        assert output["bank_fill"] == [0.4, 0.8][engine.state.iteration - 1]

    trainer.run()


def test_a_weight_of_zero_and_no_handler_train_the_same_bits():
    runs = []  # each seeded by its epochs, as building the projector draws random numbers
    for extra in ([], [lambda network: make_handler(network, weight=0.0)]):
        dataset = make_dataset()
        seed = lambda _, dataset=dataset: SeedHandler(dataset=dataset)  # noqa: E731
        network, _, handlers = train([seed, *extra, lambda _: Losses()], dataset=dataset)
        runs.append((network.state_dict(), handlers[-1].values))
    (plain, plain_losses), (handled, handled_losses) = runs
    assert plain_losses == handled_losses
    assert all(torch.equal(plain[name], handled[name]) for name in plain)


def test_projector_joins_the_optimizer_once_like_its_last_group():
    _, trainer, (handler,) = train([make_handler])
    trainer.state.max_epochs = 3
    trainer.run()
    groups = trainer.optimizer.param_groups
    assert [group["name"] for group in groups] == ["encoder", "heads", "projector"]
    assert (groups[2]["lr"], groups[2]["weight_decay"]) == (0.04, 0.05)
    assert groups[2]["params"] == list(handler.projector.parameters())


def test_contrast_waits_for_min_fill():
    _, trainer, _ = train(
        [lambda network: make_handler(network, min_fill=3)], epochs=1, shuffle=False
    )
    assert trainer.state.output["contrastive"] > 0  # four of each class by now
    _, trainer, _ = train(
        [lambda network: make_handler(network, min_fill=5)], epochs=1, shuffle=False
    )
    assert trainer.state.output["contrastive"] == 0


def test_a_batch_of_one_class_into_an_empty_bank_trains():
    dataset = make_dataset()
    dataset.data.sort(key=lambda item: item["label"])
    network, _, (_, losses) = train(
        [make_handler, lambda _: Losses()], dataset=dataset, shuffle=False
    )
    assert all(torch.isfinite(torch.tensor(losses.values)))
    assert all(p.isfinite().all() for p in network.parameters())


def test_exclude_own_leaves_a_first_subject_without_positives():
    dataset = make_dataset(subjects=2)
    _, trainer, _ = train([make_handler], dataset=dataset, epochs=1)
    assert trainer.state.output["contrastive"] > 0
    _, trainer, _ = train(
        [lambda network: make_handler(network, exclude_own=True)], dataset=dataset, epochs=1
    )
    assert trainer.state.output["contrastive"] == 0


def test_the_contrast_rises_after_its_warmup():
    totals = {}

    def ramped(network):
        return make_handler(network, weight=0.8, warmup_epochs=1, ramp_epochs=3)

    class Noted(MRNLoss):
        def forward(self, *args):
            self.value = super().forward(*args)
            return self.value

    loss = Noted()

    def note(engine):
        output = engine.state.output
        added = (output["loss"] - loss.value) / output["contrastive"]
        totals.setdefault(engine.state.epoch, []).append(added.item())

    class Note:
        def attach(self, engine):
            engine.add_event_handler(IterationEvents.LOSS_COMPLETED, note)

    train([ramped, lambda _: Note()], loss=loss, epochs=6)
    weights = [sum(values) / len(values) for values in totals.values()]
    assert weights == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 0.8], abs=1e-4)


def test_state_survives_a_file(tmp_path):
    _, _, (handler,) = train([make_handler])
    torch.save(handler.state_dict(), tmp_path / "state.pt")
    other = make_handler(StandIn())
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    torch.testing.assert_close(other.state_dict(), handler.state_dict(), rtol=0, atol=0)
    assert sorted(handler.state_dict()) == ["bank", "projector", "teacher"]


# ---- two ranks


def run_rank(rank, world_size, folder, steps=8, batch=8):
    """Train on this rank's share of every global batch and save what the ranks must agree on."""
    torch.set_num_threads(1)
    if world_size > 1:
        dist.init_process_group(
            "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world_size
        )
    manual_seed(7)
    network = StandIn()
    wrapped = DistributedDataParallel(network) if world_size > 1 else network
    manual_seed(7 + rank)  # ranks may start with other projectors
    handler = MSupMoCoHandler(network=wrapped, bank_size=12, projection_dim=8, momentum=0.9)
    items = make_dataset(subjects=steps * batch, augment=False)
    share = batch // world_size
    for i, item in enumerate(items.data):
        item["label"] = i % batch // (batch // 2)  # each rank sees one class alone
    items.data = [item for i, item in enumerate(items.data) if i % batch // share == rank]
    trainer = make_trainer(
        wrapped,
        make_optimizer(wrapped, lr=1e-3),
        [handler],
        epochs=1,
        dataset=items,
        shuffle=False,
        batch_size=share,
    )
    trainer.run()
    assert trainer.state.iteration == steps
    network.eval()
    images = prepare_batch(collate([items[0]]))[0]
    parts = {"network": network.state_dict(), "logits": network(images)["logits"].detach()}
    torch.save({**parts, **handler.state_dict()}, f"{folder}/{rank}.pt")
    if world_size > 1:
        dist.destroy_process_group()


def test_two_ranks_train_like_one_process(tmp_path, forks):
    (single,) = forks.run_ranks(run_rank, 1, tmp_path / "1")
    first, second = forks.run_ranks(run_rank, 2, tmp_path / "2")
    torch.testing.assert_close(first["bank"], second["bank"], rtol=0, atol=0)
    for part in ("network", "logits", "projector", "teacher", "bank"):
        torch.testing.assert_close(first[part], single[part], rtol=0, atol=1e-6)
