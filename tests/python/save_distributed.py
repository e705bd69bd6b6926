"""Saves a checkpoint from one of two processes: ``save_distributed.py FOLDER RANK STORE``."""

import sys

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor

PROCESSES = 2


def full_tensors() -> dict[str, torch.Tensor]:
    """What is saved: rows that two processes share evenly, rows that they do not, columns, and what each has whole."""
    torch.manual_seed(0)
    return {
        "even": torch.randn(4, 3),
        "odd": torch.randn(5, 2).to(torch.bfloat16),
        "columns": torch.arange(12).view(2, 6),
        "whole": torch.randn(3),
    }


PLACEMENTS = {"even": Shard(0), "odd": Shard(0), "columns": Shard(1), "whole": Replicate()}


def main(folder: str, rank: str, store: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=int(rank), world_size=PROCESSES)
    mesh = init_device_mesh("cpu", (PROCESSES,))
    state = {name: distribute_tensor(full, mesh, [PLACEMENTS[name]]) for name, full in full_tensors().items()}
    # What an optimizer keeps: lists of dicts, and of tensors too.
    groups = [{"lr": 0.1, "params": [0, 1]}, {"lr": 0.2, "params": [state["odd"], None]}]
    dcp.save({"model": state, "step": 7, "optimizer": {"groups": groups, "0": "zero"}}, checkpoint_id=folder)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
