"""A stand-in for MRN, its batches and its trainer: the interfaces of the real ones, tiny."""

from copy import deepcopy

import torch
from ignite.engine import Events
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedTrainer
from monai.transforms import Compose, RandGaussianNoised
from torch import nn

from mrn_components import MRNLoss, param_groups

ROIS = {"nm": 2, "qsm": 3}  # name -> classes


class StandIn(nn.Module):
    def __init__(self, dropout=0.0, width=6):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(4, width), nn.LayerNorm(width), nn.GELU())
        self.dropout = nn.Dropout(dropout)
        self.dpt = nn.ModuleDict({roi: nn.Linear(width, k) for roi, k in ROIS.items()})
        self.classifier = nn.Linear(width * len(ROIS), 2)
        self.patient_channels = width * len(ROIS)
        self.register_buffer("calls", torch.zeros(()))

    def patient_encoder(self):
        teacher = deepcopy(self)
        teacher.dpt = teacher.classifier = None
        return teacher

    def forward(self, images):
        if self.training:
            self.calls += 1
        tokens = {  # one token a row: (1, D, H, 4) -> (D, H, width)
            roi: [self.dropout(self.encoder(crop[0])) for crop in crops]
            for roi, crops in images.items()
        }
        patient = torch.cat(
            [torch.stack([t.mean((0, 1)) for t in tokens[roi]]) for roi in images], dim=1
        )
        if self.classifier is None:
            return {"patient": patient}
        output = {"patient": patient, "logits": self.classifier(patient)}
        if self.training and self.dpt is not None:
            output["masks"] = {  # (K, D, H, W)
                roi: [self.dpt[roi](t).movedim(-1, 0)[..., None].expand(-1, -1, -1, 4) for t in ts]
                for roi, ts in tokens.items()
            }
        return output


def make_dataset(subjects=8, augment=True, seed=0):
    rng = torch.Generator().manual_seed(seed)
    items = []
    for i in range(subjects):
        item = {"subject": f"PHAN_{i:03d}", "label": i % 2}
        for roi, classes in ROIS.items():
            shape = (2 + i % 3, 3, 4)  # unequal patients
            item[roi] = torch.randn(1, *shape, generator=rng) + (i % 2)
            item[f"mask_{roi}"] = torch.randint(0, classes, shape, generator=rng)
        items.append(item)
    noise = [RandGaussianNoised(keys=list(ROIS), prob=0.7)] if augment else []
    return Dataset(items, Compose(noise))


def collate(items):
    return {key: [item[key] for item in items] for key in items[0]}


def prepare_batch(batch, device=None, non_blocking=False, **kwargs):
    images = {roi: [torch.as_tensor(crop) for crop in batch[roi]] for roi in ROIS}
    masks = {roi: batch[f"mask_{roi}"] for roi in ROIS}
    return images, {"label": torch.tensor(batch["label"]), "masks": masks}


def make_optimizer(network, lr=0.02):
    groups = {
        "encoder": {"modules": ["encoder"], "lr": lr, "weight_decay": 0.1},
        "heads": {"modules": ["dpt", "classifier"], "lr": 2 * lr, "weight_decay": 0.05},
    }
    return torch.optim.AdamW(param_groups(network=network, groups=groups))


def make_trainer(  # noqa: PLR0917
    network,
    optimizer,
    handlers,
    loss=None,
    epochs=2,
    dataset=None,
    workers=0,
    shuffle=True,
    batch_size=4,
):
    loader = DataLoader(
        dataset if dataset is not None else make_dataset(),
        batch_size=batch_size,
        shuffle=shuffle,
        num_workers=workers,
        collate_fn=collate,
    )
    return SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=epochs,
        train_data_loader=loader,
        network=network,
        optimizer=optimizer,
        loss_function=loss or MRNLoss(),
        prepare_batch=prepare_batch,
        train_handlers=handlers,
        decollate=False,
    )


class Losses:
    """Records the total loss of every iteration."""

    def __init__(self):
        self.values = []

    def attach(self, engine):
        engine.add_event_handler(
            Events.ITERATION_COMPLETED,
            lambda e: self.values.append(e.state.output["loss"].item()),
        )
