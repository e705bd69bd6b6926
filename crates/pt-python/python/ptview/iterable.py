"""Batches for worker processes. Imports torch: ``ptview.IterableDataset`` does so when it is first asked for."""

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import get_worker_info

from ptview._errors import Error
from ptview.data import Dataset
from ptview.loader import Loader, OrderState


class IterableState(OrderState):
    """Where an epoch stands, on this rank and in this worker."""

    #: The first batch of the epoch that this worker has not yielded.
    batch: int
    batch_size: int


class IterableDataset(torch.utils.data.IterableDataset[Any]):
    """Batches of a :class:`ptview.Dataset`, for a ``DataLoader`` with worker processes.

    :class:`ptview.Loader` is faster, and needs none. This is for those who must have them, because a ``transform`` is
    slow and holds the GIL. Each worker takes every n-th batch of its rank; together they yield every batch once, in
    the same order however many they are.

    >>> batches = ptview.IterableDataset(data, batch_size=256, shuffle=True, window=4096)
    >>> loader = DataLoader(batches, batch_size=None, num_workers=2)
    >>> for epoch in range(2):
    ...     batches.set_epoch(epoch)
    ...     for batch in loader:
    ...         train(batch)

    ``torchdata.stateful_dataloader.StatefulDataLoader`` resumes it in the middle of an epoch. Arguments are those of
    :class:`ptview.Loader`.
    """

    def __init__(
        self,
        data: Dataset,
        batch_size: int,
        shuffle: bool = False,
        seed: int = 0,
        drop_last: bool = False,
        rank: int | None = None,
        world_size: int | None = None,
        *,
        window: int | None = None,
    ):
        self.dataset = data
        loader = Loader(data, batch_size, shuffle, seed, drop_last, rank, world_size, window=window)
        # Worker processes know nothing of torch.distributed.
        loader._rank, loader._world_size = loader._ranks()
        self._loader = loader
        # Shared with workers that stay.
        self._epoch = torch.zeros((), dtype=torch.int64)
        self._epoch.share_memory_()  # type: ignore[no-untyped-call]
        self._batch = 0
        self._resume_from: IterableState | None = None

    def set_epoch(self, epoch: int) -> None:
        """Says which epoch the next pass is, also to workers that stay from pass to pass."""
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        """Batches of an epoch, on this rank."""
        return len(self._loader)

    def state_dict(self) -> IterableState:
        """Returns where the pass stands."""
        order = self._loader._order_state(int(self._epoch))
        return {**order, "batch": self._batch, "batch_size": self._loader.batch_size}

    def load_state_dict(self, state: IterableState) -> None:
        """Makes the next pass go on where :meth:`state_dict` was called, by the same worker of as many.

        Raises:
            ptview.Error: The data set has another number of samples, or batches would be others.
        """
        self._loader._check_order(state)
        if state["batch_size"] != self._loader.batch_size:
            raise Error(f"the state is of batches of {state['batch_size']}; these are of {self._loader.batch_size}")
        self._resume_from = state

    def __iter__(self) -> Iterator[Any]:
        epoch, first = int(self._epoch), 0
        if self._resume_from is not None:
            epoch, first = self._resume_from["epoch"], self._resume_from["batch"]
            self._epoch.fill_(epoch)
            self._resume_from = None
        worker = get_worker_info()
        number, count = (worker.id, worker.num_workers) if worker is not None else (0, 1)
        order = self._loader._order(epoch, 0)
        for batch in range(len(order)):
            following = order.next()
            if following is None or batch < first or batch % count != number:
                continue
            # Before it is yielded: that is when states are taken.
            self._batch = batch + 1
            yield self.dataset.collate(self.dataset.__getitems__(following[0]))
        self._batch = 0
