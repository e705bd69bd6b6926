"""Batches read ahead by threads, without worker processes."""

import sys
import warnings
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, Literal, TypedDict

from ptview import _memory
from ptview._errors import Error
from ptview._ptview import Order, Pipeline
from ptview.data import Batch, Dataset


class OrderState(TypedDict):
    """What the order of an epoch depends on."""

    epoch: int
    samples: int
    seed: int | None
    window: int | None


class LoaderState(OrderState):
    """Where an epoch stands: what :meth:`Loader.load_state_dict` needs to go on with the samples that are left."""

    #: Samples that all ranks together have had of the epoch.
    consumed: int


class Loader:
    """Batches of a :class:`Dataset`, read ahead by threads of this process.

    Takes the place of a ``DataLoader``: no worker processes, so no copies between them, no start-up, and no memory of
    theirs.

    >>> loader = ptview.Loader(data, batch_size=256, shuffle=True, seed=42)
    >>> for epoch in range(2):
    ...     for batch in loader:
    ...         train(batch)

    The order is a function of seed and epoch: the same everywhere, split among ranks without talking, and resumed in
    the middle of an epoch from a few numbers. Each pass is the next epoch; :meth:`set_epoch` says which one is next.

    Args:
        data: The data set. Its ``transform`` is called for each sample, in the thread that asks for the batch.
        batch_size: Samples of a batch, on this rank.
        shuffle: Whether epochs are shuffled; otherwise samples come in their order.
        seed: Of the shuffle.
        drop_last: Whether a last batch that is not full is left out, and with several ranks the few samples that are
            left over. Otherwise all ranks have as many samples, and a few come twice.
        rank: Which part of the samples is taken, of ``world_size``. Both are found from ``torch.distributed`` when
            that is initialised.
        threads: Threads that read; as many as there are cores, if ``None``. More help where files are far away.
        prefetch: Batches that are read ahead.
        pin_memory: Whether batches lie in pinned memory. With a CUDA ``device``, they do.
        device: Where batches are copied to.
        on_error: Whether a sample that cannot be read is an error (``"fail"``), or left out (``"skip"``) with a
            warning; :attr:`skipped` tells which.
        window: Shuffles in windows of so many samples, for disks and networks that like to read on. Of rows and
            tensors, files are taken whole and in random order, as many at a time as fill a window, and their samples
            are shuffled with each other. Where a sample is a file, blocks of neighbouring files come in random order,
            shuffled within each block.

    A batch is written over only when no tensor of it is left.
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
        threads: int | None = None,
        prefetch: int = 2,
        pin_memory: bool = False,
        device: Any = None,
        on_error: Literal["fail", "skip"] = "fail",
        *,
        window: int | None = None,
    ):
        sizes = {"batch_size": batch_size, "prefetch": prefetch, "threads": threads, "window": window}
        for name, value in sizes.items():
            if value is not None and value < 1:
                raise ValueError(f"{name} is at least 1, not {value}")
        if on_error not in ("fail", "skip"):
            raise ValueError(f'on_error is "fail" or "skip", not {on_error!r}')
        if (rank is None) != (world_size is None):
            raise ValueError("rank and world_size are given together")
        self.dataset = data
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.drop_last = drop_last
        self.threads = threads
        self.prefetch = prefetch
        self.pin_memory = pin_memory or (device is not None and str(device).startswith("cuda"))
        self.device = device
        self.on_error = on_error
        self.window = window
        #: The file of each sample that was left out, and why.
        self.skipped: list[tuple[str, Exception]] = []
        self._rank, self._world_size = rank, world_size
        self._next_epoch = 0
        self._resume_from = 0
        #: What :meth:`state_dict` tells: of the pass that was begun last.
        self._position: tuple[int, int] | None = None

    @property
    def rank(self) -> int:
        """Which part of the samples this process takes."""
        return self._ranks()[0]

    @property
    def world_size(self) -> int:
        """Among how many processes the samples are split."""
        return self._ranks()[1]

    def _ranks(self) -> tuple[int, int]:
        if self._rank is not None and self._world_size is not None:
            return self._rank, self._world_size
        distributed = sys.modules.get("torch.distributed")
        if distributed is not None and distributed.is_available() and distributed.is_initialized():
            return distributed.get_rank(), distributed.get_world_size()
        return 0, 1

    def __len__(self) -> int:
        """Batches of a whole epoch, on this rank."""
        return len(self._order(0, 0))

    def set_epoch(self, epoch: int) -> None:
        """Says which epoch the next pass is; otherwise it is the one after that of the last pass."""
        # Frameworks say so also before they go on with an epoch that was broken off.
        if epoch != self._next_epoch:
            self._next_epoch, self._resume_from = epoch, 0
        self._position = None

    def state_dict(self) -> LoaderState:
        """Returns where the last pass stands, behind the last batch taken; what is read ahead does not count."""
        epoch, consumed = self._position or (self._next_epoch, self._resume_from)
        return {**self._order_state(epoch), "consumed": consumed}

    def load_state_dict(self, state: LoaderState) -> None:
        """Makes the next pass go on where :meth:`state_dict` was called, on this rank or on another.

        Batch size and number of ranks may be others than they were; data set, seed, window and ``shuffle`` may not.

        Raises:
            ptview.Error: The data set has another number of samples, or the order would be another one.
        """
        self._check_order(state)
        self._next_epoch, self._resume_from = state["epoch"], state["consumed"]
        self._position = None

    def __iter__(self) -> Iterator[Any]:
        epoch, consumed = self._next_epoch, self._resume_from
        self._next_epoch, self._resume_from = epoch + 1, 0
        self._position = (epoch, consumed)
        return _Pass(self, epoch, self._order(epoch, consumed))

    def _order_state(self, epoch: int) -> OrderState:
        seed, window = (self.seed, self.window) if self.shuffle else (None, None)
        return {"epoch": epoch, "samples": len(self.dataset), "seed": seed, "window": window}

    def _check_order(self, state: OrderState) -> None:
        """Refuses a state of which this order does not go on."""
        mine = self._order_state(state["epoch"])
        kept = {name: state.get(name) for name in mine}
        if kept != mine:
            raise Error(f"the state is of an epoch with {_listed(kept)}; this one would have {_listed(mine)}")

    def _order(self, epoch: int, consumed: int) -> Order:
        rank, world_size = self._ranks()
        return Order(
            self.dataset._samples,
            self.batch_size,
            seed=self.seed if self.shuffle else None,
            window=self.window,
            drop_last=self.drop_last,
            rank=rank,
            world_size=world_size,
            epoch=epoch,
            consumed=consumed,
        )

    def __repr__(self) -> str:
        order = f"shuffled, seed {self.seed}" if self.shuffle else "in order"
        return f"ptview.Loader({len(self)} batches of {self.batch_size}, {order}; {self.dataset!r})"


class _Pass(Iterator[Any]):
    """What is left of an epoch. The thread that reads ends when this is dropped."""

    def __init__(self, loader: Loader, epoch: int, order: Order):
        self._loader = loader
        self._epoch = epoch
        self._order = order
        self._data = loader.dataset
        self._recipes = self._data._recipes or self._data._make_recipes()
        self._pins = loader.pin_memory and self._data._framework == "torch"
        #: Of each batch that is read ahead where the epoch stands behind it, and its memory if torch owns that.
        self._ahead: deque[tuple[int, Any]] = deque()
        self._pipeline: Pipeline | None = None
        if len(order):
            self._pipeline = Pipeline(self._data._samples, threads=loader.threads, skip=loader.on_error == "skip")
            for _ in range(loader.prefetch):
                self._submit()

    def __len__(self) -> int:
        """Batches that are left."""
        return len(self._order) + len(self._ahead)

    def _submit(self) -> None:
        following = self._order.next()
        if following is None or self._pipeline is None:
            return
        samples, consumed = following
        plan = self._data._samples.plan(samples, self._data._layout)
        memory = _memory.pinned(plan.nbytes) if self._pins and plan.nbytes else None
        self._pipeline.submit(plan, None if memory is None else memory.numpy())
        self._ahead.append((consumed, memory))

    def __next__(self) -> Any:
        while True:
            if self._pipeline is None:
                raise StopIteration
            try:
                self._submit()
                if not self._ahead:
                    raise StopIteration
                consumed, memory = self._ahead.popleft()
                plan, own, skipped = self._pipeline.next()
            except BaseException as error:
                # The end, an error, or Ctrl-C: no thread is left behind.
                self._pipeline = None
                self._ahead.clear()
                if isinstance(error, StopIteration):
                    self._set_position(None)
                raise
            self._set_position((self._epoch, consumed))
            self._tell(skipped)
            if len(plan):
                return self._batch(Batch(self._data, self._recipes, plan, own if memory is None else memory))

    def _set_position(self, position: tuple[int, int] | None) -> None:
        """Unless another pass was begun, or another position set."""
        if self._loader._position is not None and self._loader._position[0] == self._epoch:
            self._loader._position = position

    def _batch(self, samples: Batch) -> Any:
        data = self._data
        if data.transform is None:
            batch = samples.collate()
        else:
            batch = data.collate([data.transform(sample) for sample in samples])
        return batch if self._loader.device is None else _to(batch, self._loader.device)

    def _tell(self, skipped: list[tuple[int, Exception]]) -> None:
        for number, error in skipped:
            path, _ = self._data.locate(number)
            self._loader.skipped.append((path, error))
            warnings.warn(f"sample {number} was left out: {error}", stacklevel=3)


def _listed(order: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in order.items() if name != "epoch")


def _to(batch: Any, device: Any) -> Any:
    """Copies all tensors of a batch to a device; from pinned memory, without waiting."""
    if hasattr(batch, "to"):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, dict):
        return type(batch)((key, _to(value, device)) for key, value in batch.items())
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(_to(value, device) for value in batch))
    if isinstance(batch, list | tuple):
        return type(batch)(_to(value, device) for value in batch)
    return batch
