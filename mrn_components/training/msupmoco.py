"""mSupMoCo: multi-ROI supervised momentum contrast (section 3.3.2, Eq. 8 and 9).

Shapes: B subjects, C patient channels, d embedding channels, K keys a class.
"""

from copy import deepcopy
from typing import Any, Literal

import torch
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from monai.utils.dist import evenly_divisible_all_gather
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import get_ema_multi_avg_fn

from mrn_components.data.target import HC_PD, Target
from mrn_components.training.losses import PatientContrastiveLoss
from mrn_components.training.optim import unwrap


class ProjectionHead(nn.Sequential):
    """Two-layer non-linear projection of the patient representation to unit length (section 3.3.2).

    Args:
        in_channels: channels of the patient representation.
        out_channels: channels of the embedding. Paper: silent; MoCo and C3R use 128.
    """

    def __init__(self, *, in_channels: int, out_channels: int = 128) -> None:
        hidden, out = nn.Linear(in_channels, in_channels), nn.Linear(in_channels, out_channels)
        super().__init__(hidden, nn.ReLU(), out)

    def forward(self, patient: Tensor) -> Tensor:
        """Project (B, C) to unit vectors (B, d)."""
        return functional.normalize(super().forward(patient), dim=1)


class CategoryBank(nn.Module):
    """Category memory bank: the latest keys of every class, in rings (section 3.3.2).

    Args:
        size: keys kept of each class. Paper: 1024 (section 4.1.2).
        channels: channels of a key.
        num_classes: number of classes.

    Raises:
        ValueError: for a size below 1.
    """

    keys: Tensor
    written: Tensor

    def __init__(self, *, size: int = 1024, channels: int = 128, num_classes: int = 2) -> None:
        super().__init__()
        if size < 1:
            raise ValueError(f"bank size must be at least 1 key a class, got {size}.")
        self.register_buffer("keys", torch.zeros(num_classes, size, channels))
        # Keys ever written of each class; modulo the size, this is the ring's next slot.
        self.register_buffer("written", torch.zeros(num_classes, dtype=torch.int64))

    @property
    def size(self) -> int:
        """Slots of each class."""
        return self.keys.shape[1]

    @property
    def counts(self) -> Tensor:
        """Filled slots of each class."""
        return self.written.clamp(max=self.size)

    @torch.no_grad()
    def enqueue(self, keys: Tensor, labels: Tensor) -> None:
        """Write keys (N, d) in their order over the oldest of each class; ``labels`` are (N,).

        A ValueError refuses a label outside the bank's classes.
        """
        num_classes = len(self.written)
        # A GPU stops at a label outside by itself; to ask it here would be to wait for it.
        if labels.device.type == "cpu" and ((labels < 0) | (labels >= num_classes)).any():
            raise ValueError(
                f"labels must be in [0, {num_classes}), got {labels.tolist()}; "
                "give the bank as many classes as the data has."
            )
        # Of more keys than slots only the last survive; two writes to a slot have no order.
        for part, part_labels in zip(keys.split(self.size), labels.split(self.size), strict=True):
            self._write(part, part_labels)

    def contents(self) -> tuple[Tensor, Tensor]:
        """Return the keys (N, d) in all slots, and their labels, -1 where a slot is empty."""
        slots = torch.arange(self.size, device=self.keys.device)
        classes = torch.arange(len(self.keys), device=self.keys.device)[:, None]
        labels = torch.where(slots < self.counts[:, None], classes, -1)  # (classes, K)
        return self.keys.flatten(0, 1).clone(), labels.flatten()

    def _write(self, keys: Tensor, labels: Tensor) -> None:
        """Write at most as many keys as a class has slots."""
        own = labels[:, None] == torch.arange(len(self.written), device=labels.device)
        # How many keys of its class stand before a key in the batch.
        before = (own.cumsum(0) - 1).gather(1, labels[:, None]).squeeze(1)
        slots = (self.written[labels] + before) % self.size
        self.keys[labels, slots] = keys.to(self.keys.dtype)
        self.written += own.sum(0)


class MSupMoCoHandler:
    """Add the multi-ROI supervised contrastive loss to any trainer (Eq. 8, 9 and 12).

    After the trainer has computed its loss, a momentum teacher embeds the same batch, its keys
    enter the bank, and the student's embeddings are contrasted with the bank. The teacher follows
    the student after every optimiser step. Teacher, bank and projector exist in training only.

    For the curves, ``engine.state.output`` receives "contrastive", the unweighted loss, and
    "bank_fill", the share of filled slots.

    Args:
        network: gives ``patient_channels``, ``patient_encoder()`` (a copy whose forward returns
            {"patient": (B, C)}, the teacher) and predictions with "patient" (B, C). When wrapped in
            ``DistributedDataParallel``, so is the projector.
        momentum: share of the teacher that stays at a step. Paper: 0.999 (Eq. 9).
        bank_size: keys kept of each class. Paper: 1024 (section 4.1.2).
        temperature: of the contrastive loss. Paper: 0.1 (section 4.1.2).
        weight: factor of the loss, the second trade-off of Eq. 12 (paper silent; the first author's
            public C3R_UDA has 0.1).
        warmup_epochs: first epochs without the loss (paper silent; C3R_UDA has some).
        ramp_epochs: epochs in which the factor then rises linearly from 0 to ``weight``.
        denominator: see ``PatientContrastiveLoss``.
        projection_dim: channels of the embedding (paper silent; MoCo and C3R use 128).
        target: what is predicted. Classes are held apart; of a score the thirds of its range.
        min_fill: keys that every class which the bank has met must hold before the loss counts.
        exclude_own: do not use an anchor's own key, the teacher's view of its image, as a positive.

    Raises:
        ValueError: for a momentum outside [0, 1] or a ``min_fill`` outside [1, bank_size].
    """

    def __init__(
        self,
        *,
        network: nn.Module,
        momentum: float = 0.999,
        bank_size: int = 1024,
        temperature: float = 0.1,
        weight: float = 1.0,
        warmup_epochs: int = 0,
        ramp_epochs: int = 0,
        denominator: Literal["negatives", "supcon"] = "negatives",
        projection_dim: int = 128,
        target: Target = HC_PD,
        min_fill: int = 1,
        exclude_own: bool = False,
    ) -> None:
        if not 0 <= momentum <= 1:
            raise ValueError(f"momentum must be in [0, 1], got {momentum}; the paper uses 0.999.")
        if not 1 <= min_fill <= bank_size:
            raise ValueError(
                f"min_fill must be in [1, bank_size = {bank_size}], got {min_fill}; "
                "with more the loss would never count."
            )
        if min(warmup_epochs, ramp_epochs) < 0:
            raise ValueError(
                "warmup_epochs and ramp_epochs must be 0 or more, got "
                f"{warmup_epochs} and {ramp_epochs}."
            )
        self.target = target
        self.weight = weight
        self.warmup_epochs = warmup_epochs
        self.ramp_epochs = ramp_epochs
        self.min_fill = min_fill
        self.exclude_own = exclude_own
        self.loss = PatientContrastiveLoss(temperature=temperature, denominator=denominator)

        student: Any = unwrap(network)
        device = next(student.parameters()).device
        classes = target.num_categories
        bank = CategoryBank(size=bank_size, channels=projection_dim, num_classes=classes)
        self.bank = bank.to(device)
        self.projector: nn.Module = ProjectionHead(
            in_channels=student.patient_channels, out_channels=projection_dim
        ).to(device)
        if isinstance(network, DistributedDataParallel):
            self.projector = DistributedDataParallel(self.projector)  # all ranks get rank 0's
        self.teacher = nn.ModuleDict(
            {"network": student.patient_encoder(), "projector": deepcopy(unwrap(self.projector))}
        )
        self.teacher.eval().requires_grad_(False)
        self._student = nn.ModuleDict({"network": student, "projector": unwrap(self.projector)})
        self._average = get_ema_multi_avg_fn(momentum)
        projector = unwrap(self.projector)
        self._parts = {"teacher": self.teacher, "projector": projector, "bank": self.bank}

    def attach(self, engine: Engine) -> None:
        """Subscribe to a MONAI ``SupervisedTrainer``."""
        engine.add_event_handler(Events.STARTED, self.join_optimizer)
        engine.add_event_handler(IterationEvents.LOSS_COMPLETED, self.add_loss)

    def join_optimizer(self, engine: Any) -> None:
        """Train the projector like the optimiser's last group; let the teacher follow each step."""
        optimizer = engine.optimizer
        if any(group.get("name") == "projector" for group in optimizer.param_groups):
            return  # the trainer is run a second time
        like = optimizer.param_groups[-1]
        optimizer.add_param_group(
            {**like, "name": "projector", "params": list(self.projector.parameters())}
        )
        # Not ITERATION_COMPLETED: with accumulated gradients an iteration may make no step.
        optimizer.register_step_post_hook(lambda *_: self.update_teacher())

    def add_loss(self, engine: Engine) -> None:
        """Add the contrastive loss of the batch (Eq. 8) to the loss, times its weight."""
        output: dict[str, Any] = engine.state.output  # type: ignore[assignment]  # no tensor
        labels = self.target.categories(output["label"]["label"])
        own_keys = self._embed(output["image"])
        self.bank.enqueue(
            evenly_divisible_all_gather(own_keys, concat=True),
            evenly_divisible_all_gather(labels, concat=True),
        )
        keys, key_labels = self.bank.contents()
        counts = self.bank.counts  # a score's third may have no subject at all
        ready = ((counts == 0) | (counts >= self.min_fill)).all()
        key_labels = key_labels.where(ready, -1)
        queries = self.projector(output["pred"]["patient"].float())
        loss = self.loss(queries, labels, keys, key_labels, own_keys if self.exclude_own else None)
        output["loss"] = output["loss"] + self.weight * self._ramp(engine.state.epoch) * loss
        output["contrastive"] = loss.detach()
        output["bank_fill"] = self.bank.counts.float().mean() / self.bank.size

    @torch.no_grad()
    def update_teacher(self) -> None:
        """Move the teacher towards the student: teacher = m teacher + (1 - m) student (Eq. 9)."""
        parameters = dict(self._student.named_parameters())
        names, averages = zip(*self.teacher.named_parameters(), strict=True)
        self._average(averages, [parameters[name] for name in names], None)
        buffers = dict(self._student.named_buffers())  # statistics of batch normalisation
        for name, buffer in self.teacher.named_buffers():
            buffer.copy_(buffers[name])

    def state_dict(self) -> dict[str, Any]:
        """Teacher, projector and bank, as tensors by name."""
        return {name: part.state_dict() for name, part in self._parts.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        for name, part in self._parts.items():
            part.load_state_dict(state[name])

    def _ramp(self, epoch: int) -> float:
        """Share of the weight in an epoch, from 1, by the epoch alone: resuming needs no state."""
        since = epoch - self.warmup_epochs
        return min(max(since, 0) / (self.ramp_epochs + 1), 1.0)

    @torch.no_grad()
    def _embed(self, images: Any) -> Tensor:
        return self.teacher["projector"](self.teacher["network"](images)["patient"].float())
