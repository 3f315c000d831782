"""A training run with all that has a state, in miniature."""

import torch
from ignite.metrics import Average
from ignite.utils import manual_seed
from monai.engines import SupervisedEvaluator
from stand_in import (
    Losses,
    StandIn,
    collate,
    make_dataset,
    make_optimizer,
    make_trainer,
    prepare_batch,
)
from torch.utils._pytree import tree_flatten

from mrn_components import (
    KeptWeights,
    MRNLoss,
    MSupMoCoHandler,
    PhaseValidationHandler,
    PretrainPhaseHandler,
    RunCheckpointHandler,
    SeedHandler,
)

SCORES = {3: 0.5, 4: 0.9, 5: 0.7, 6: 0.9}  # validation metrics by epoch
LOSSES = {3: 0.7, 4: 0.3, 5: 0.4, 6: 0.2}


class Scripted(Average):
    """A metric that follows a script."""

    def __init__(self, evaluator, values):
        super().__init__(output_transform=lambda _: 0.0)
        self.evaluator, self.values = evaluator, values

    def compute(self):
        return self.values.get(self.evaluator.state.epoch, 0.5)


def make_evaluator():
    evaluator = SupervisedEvaluator(
        torch.device("cpu"),
        torch.utils.data.DataLoader(make_dataset(2), 2, collate_fn=collate),
        StandIn(),
        prepare_batch=prepare_batch,
        decollate=False,
    )
    evaluator._register_metrics(
        {"score": Scripted(evaluator, SCORES)}, {"validation_loss": Scripted(evaluator, LOSSES)}
    )
    return evaluator


def make_run(
    directory,
    *,
    epochs=4,
    resume=False,
    workers=0,
    contrast=True,
    width=6,
    keep="least_loss",
    **options,
):
    """A run with all that has a state: dropout, augmentation, two phases, teacher and bank."""
    manual_seed(3 if not resume else 4)  # a resumed run starts from other weights
    dataset, loss = make_dataset(), MRNLoss()
    network = StandIn(dropout=0.2, width=width)
    optimizer = make_optimizer(network)
    evaluator = make_evaluator()
    handlers = {
        "seed": SeedHandler(dataset=dataset),
        "phase": PretrainPhaseHandler(loss=loss, pretrain_epochs=2),
        "validation": PhaseValidationHandler(validator=evaluator, first_epoch=3),
        "losses": Losses(),
    }
    if contrast:
        handlers["msupmoco"] = MSupMoCoHandler(
            network=network, bank_size=5, projection_dim=8, momentum=0.9
        )
    kept = KeptWeights(rule=keep, evaluator=evaluator, first_epoch=3, num_epochs=3, momentum=0.8)
    saver = RunCheckpointHandler(
        directory=directory, handlers=handlers, keep=kept, resume=resume, **options
    )
    trainer = make_trainer(
        network,
        optimizer,
        [*handlers.values(), saver],
        loss=loss,
        epochs=epochs,
        dataset=dataset,
        workers=workers,
    )
    return trainer, handlers, evaluator


def checkpoint_of(directory, epoch):
    return torch.load(directory / f"checkpoints/epoch_{epoch:04d}.pt", weights_only=True)


def files(directory):
    return sorted(
        str(path.relative_to(directory))
        for path in directory.rglob("*")
        if path.is_file() and path.suffix != ".sha256"
    )


def assert_equal(one, other):
    """Equal to the last bit, at any depth."""
    leaves, structure = tree_flatten(one)
    other_leaves, other_structure = tree_flatten(other)
    assert structure == other_structure
    for leaf, other_leaf in zip(leaves, other_leaves, strict=True):
        assert torch.equal(leaf, other_leaf) if torch.is_tensor(leaf) else leaf == other_leaf
