"""The order in which subjects are trained on."""

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler

from mrn_components.data.tables import Subject


class BalancedSampler(Sampler[int]):
    """Shuffle subjects so that every batch has the classes in equal numbers.

    Subjects of the classes take turns. While patients still look alike to a network, whose
    classes a batch happens to have more of is most of what it can learn; in equal numbers they
    cancel out. Every subject comes at least once an epoch, those of rarer classes more often.

    The order is drawn from torch's global generator, which ``SeedHandler`` seeds every epoch.

    Args:
        subjects: labelled subjects, in the order of the dataset. Those of a score, whose labels are
            floats, are shuffled and come once.
    """

    def __init__(self, *, subjects: Sequence[Subject]) -> None:
        members: dict[int, list[int]] = {}
        for i, subject in enumerate(subjects):
            label = subject["label"]
            members.setdefault(label if isinstance(label, int) else 0, []).append(i)
        self.members = list(members.values())

    def __len__(self) -> int:
        return len(self.members) * max(map(len, self.members))

    def __iter__(self) -> Iterator[int]:
        turns = max(map(len, self.members))
        columns = []
        for own in self.members:
            rounds = -(-turns // len(own))
            order = torch.cat([torch.randperm(len(own)) for _ in range(rounds)])[:turns]
            columns.append(torch.tensor(own)[order])
        return iter(torch.stack(columns, 1).flatten().tolist())
