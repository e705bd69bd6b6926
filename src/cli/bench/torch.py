"""Loads files as it is told, line by line, and says how long that took. Run by `ptview bench`."""

import json
import sys
import time

import torch


def answer(**fields):
    print(json.dumps(fields), flush=True)


def load(paths, mmap):
    begun = time.perf_counter_ns()
    for path in paths:
        torch.load(path, map_location="cpu", mmap=mmap, weights_only=True)
    return time.perf_counter_ns() - begun


answer(torch=torch.__version__)
for line in sys.stdin:
    task = json.loads(line)
    try:
        answer(ns=load(task["paths"], task["mmap"]))
    except Exception as error:  # Whatever torch says of a file is an answer.
        answer(error=f"{type(error).__name__}: {error}")
