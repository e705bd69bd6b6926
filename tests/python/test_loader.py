"""Epochs through DataLoader, Loader and IterableDataset, against the naive epoch of torch.load."""

import gc
import itertools
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from pathlib import Path

import ptview
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, default_collate

import folders
from same import assert_same_object

HERE = Path(__file__).parent


class Naive(Dataset):
    """What everybody writes first."""

    def __init__(self, files):
        self.files = files

    def __len__(self):
        return len(self.files)

    def __getitem__(self, index):
        return torch.load(self.files[index])


def pad_collate(samples):
    tokens = torch.zeros(len(samples), 5, dtype=torch.int64)
    embedding = torch.zeros(len(samples), 5, 2, dtype=torch.float16)
    for row, sample in enumerate(samples):
        kept = min(5, len(sample["tokens"]))
        tokens[row, :kept] = sample["tokens"][:kept]
        embedding[row, :kept] = sample["embedding"][:kept]
    return {
        "tokens": tokens,
        "embedding": embedding,
        "label": torch.tensor([sample["label"] for sample in samples]),
        "length": torch.tensor([min(5, len(sample["tokens"])) for sample in samples]),
    }


class PerFile:
    """Adds the process to a sample; at the top so that it can be pickled."""

    def __call__(self, sample):
        return {"x": sample["x"] * 2, "process": os.getpid()}


def run(code: str, *arguments: object, **options) -> str:
    """Runs a program of its own."""
    program = [sys.executable, "-W", "error::RuntimeWarning", "-c", textwrap.dedent(code), *map(str, arguments)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=120, check=False, cwd=HERE, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


class TestDataLoader:
    @pytest.mark.parametrize("start", [None, "fork", "spawn"])
    def test_an_epoch_equals_the_naive_one(self, nested, tmp_path, start):
        workers = {"num_workers": 2, "multiprocessing_context": start} if start else {}
        folder, files = nested
        data = ptview.Dataset(folder)
        # As in training, the data set was used before workers start: its threads must not be missed there.
        data.__getitems__(range(20))
        ours = DataLoader(
            data, 4, shuffle=True, generator=torch.Generator().manual_seed(1), collate_fn=data.collate, **workers
        )
        theirs = DataLoader(Naive(files), 4, shuffle=True, generator=torch.Generator().manual_seed(1))
        assert_same_object(list(ours), list(theirs))

        if start == "spawn":
            return  # Starting two more processes takes seconds.
        ragged = folders.write(tmp_path, 20, folders.ragged)
        padded = ptview.Dataset(tmp_path, keys=["tokens", "embedding", "label"], pad=ptview.pad(5, lengths=True))
        ours = list(DataLoader(padded, 6, collate_fn=padded.collate, **workers))
        for batch in ours:
            assert torch.equal(batch.pop("embedding_lengths"), batch["tokens_lengths"])
            batch["length"] = batch.pop("tokens_lengths")
        assert_same_object(ours, list(DataLoader(Naive(ragged), 6, collate_fn=pad_collate)))

    def test_default_collate_in_workers(self, nested):
        folder, files = nested
        ours = DataLoader(ptview.Dataset(folder), 5, num_workers=2)
        assert_same_object(list(ours), list(DataLoader(Naive(files), 5)))

    def test_a_transform_runs_in_workers(self, simple):
        folder, _ = simple
        data = ptview.Dataset(folder, transform=PerFile())
        processes = set()
        for number, batch in enumerate(DataLoader(data, 10, num_workers=2, collate_fn=data.collate)):
            assert torch.equal(batch["x"][:, 0, 0], torch.arange(10.0) * 2 + 20 * number)
            processes |= set(batch["process"].tolist())
        assert len(processes) == 2 and os.getpid() not in processes

    def test_batches_of_workers_lie_in_shared_memory(self, simple):
        folder, _ = simple
        data = ptview.Dataset(folder)
        for batch in DataLoader(data, 10, num_workers=1, collate_fn=data.collate):
            assert batch["x"].is_shared()
        assert not data.collate(data.__getitems__([0]))["x"].is_shared()

    @pytest.mark.parametrize("way", ["file_descriptor", "file_system", "no memory files"])
    def test_a_batch_of_a_worker_is_one_storage(self, tmp_path, monkeypatch, way):
        """Also lengths, masks and labels: each storage costs a conversation with the worker."""
        if way == "no memory files":
            monkeypatch.delattr(os, "memfd_create", raising=False)
        elif way not in torch.multiprocessing.get_all_sharing_strategies():
            pytest.skip(f"this system has no {way}")
        else:
            monkeypatch.setattr(torch.multiprocessing, "_sharing_strategy", way)
        folders.write(tmp_path, 9, lambda number: folders.ragged(number) | folders.images(number) | {"name": "n"})
        padded = ptview.Dataset(tmp_path, pad=ptview.pad(lengths=True, mask=True))
        joined = ptview.Dataset(tmp_path, keys=["tokens", "label"], pad=ptview.ragged())
        for data in (padded, joined):
            here = list(DataLoader(data, 4, collate_fn=data.collate))
            there = list(DataLoader(data, 4, num_workers=1, collate_fn=data.collate))
            for one, other in zip(here, there, strict=True):
                assert_same_object(dict(other), dict(one))
                parts = [part for value in other.values() for part in (value if isinstance(value, tuple) else [value])]
                tensors = [part for part in parts if isinstance(part, torch.Tensor)]
                assert len(tensors) >= 3 and all(tensor.is_shared() for tensor in tensors)
                assert len({tensor.untyped_storage().data_ptr() for tensor in tensors}) == 1
                assert all(tensor.data_ptr() % 64 == 0 for tensor in tensors)

    def test_batches_of_a_worker_that_hold_no_tensor(self, tmp_path):
        folders.write(tmp_path, 4, folders.nested)
        data = ptview.Dataset(tmp_path, keys=["name"])
        ours = list(DataLoader(data, 2, num_workers=1, collate_fn=data.collate))
        assert ours == [{"name": ["sample 0", "sample 1"]}, {"name": ["sample 2", "sample 3"]}]

    def test_samplers_work_on_columns(self, simple):
        folder, _ = simple
        data = ptview.Dataset(folder)
        label = data.column("y")
        weights = torch.from_numpy((label == 3).astype(float))
        sampler = torch.utils.data.WeightedRandomSampler(weights, 16, generator=torch.Generator().manual_seed(0))
        for batch in DataLoader(data, 8, sampler=sampler, collate_fn=data.collate):
            assert set(batch["y"].tolist()) == {3}

    def test_a_file_that_is_gone_is_named_in_the_parent(self, tmp_path):
        files = folders.write(tmp_path, 8, folders.simple)
        data = ptview.Dataset(tmp_path)
        os.remove(files[5])
        with pytest.raises(FileNotFoundError, match=r"00005\.pt"):
            list(DataLoader(data, 4, num_workers=1, collate_fn=data.collate))

    def test_memory_of_workers_stays_flat(self, tmp_path):
        folders.write(tmp_path, 200, lambda number: {"x": torch.full((64, 64), float(number)), "name": f"n {number}"})
        run(
            """
            import sys, os, torch, ptview
            from torch.utils.data import DataLoader

            def pss():
                with open("/proc/self/smaps_rollup") as rollup:
                    return next(int(line.split()[1]) for line in rollup if line.startswith("Pss_Anon"))

            class Measured(ptview.Dataset):
                def __getitems__(self, indices):
                    batch = self.collate(super().__getitems__(indices))
                    return {**batch, "kib": pss()}

            data = Measured(sys.argv[1])
            options = {"num_workers": 2, "persistent_workers": True, "collate_fn": lambda batch: batch}
            loader = DataLoader(data, 20, shuffle=True, **options)
            peaks = []
            for epoch in range(12):
                peaks.append(max(batch["kib"] for batch in loader))
            settled, last = max(peaks[2:5]), max(peaks[-3:])
            assert last < settled + 2048, peaks
            """,
            tmp_path,
        )

    def test_twenty_thousand_files_and_few_descriptors(self, tmp_path):
        # One file under many names: hard links are files like others, and quick to make.
        first = folders.write(tmp_path, 1, folders.simple)[0]
        for number in range(1, 20_000):
            os.link(first, tmp_path / f"{number:05}.pt")
        out = run(
            """
            import os, pickle, resource, sys
            resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
            import torch, ptview
            from torch.utils.data import DataLoader

            if __name__ == "__main__":
                before = len(os.listdir("/proc/self/fd"))
                data = ptview.Dataset(sys.argv[1])
                assert len(data) == 20_000
                for workers in (0, 2):
                    samples = 0
                    for batch in DataLoader(data, 500, shuffle=True, num_workers=workers, collate_fn=data.collate):
                        samples += len(batch["y"])
                        if workers == 0:
                            assert len(os.listdir("/proc/self/fd")) <= before + 8
                    assert samples == 20_000
                assert sum(len(batch["y"]) for batch in ptview.Loader(data, 500, shuffle=True)) == 20_000
                print(len(pickle.dumps(data)))
            """,
            tmp_path,
        )
        assert int(out) < 64 * 20_000

    def test_descriptors_in_the_parent(self, tmp_path):
        """Made, read, walked by workers, many at a time, given back."""
        first = folders.write(tmp_path / "many", 1, folders.simple)[0]
        for number in range(1, 5_000):
            os.link(first, tmp_path / "many" / f"{number:05}.pt")
        folders.write(tmp_path / "few", 60, folders.simple)
        run(
            """
            import gc, os, pickle, resource, sys
            resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
            import torch, ptview
            from torch.utils.data import DataLoader

            def descriptors():
                gc.collect()
                return sum(target(number).startswith(sys.argv[1]) for number in os.listdir("/proc/self/fd"))

            def target(number):
                try:
                    return os.readlink(f"/proc/self/fd/{number}")
                except FileNotFoundError:  # closed by another thread, or that of the listing itself
                    return ""

            class Counted(ptview.Dataset):
                def __getitems__(self, indices):
                    batch = self.collate(super().__getitems__(indices))
                    return {**batch, "descriptors": descriptors()}

            if __name__ == "__main__":
                many = ptview.Dataset(sys.argv[1] + "/many")
                assert (len(many), descriptors()) == (5_000, 0), "nothing is open that was not read"
                for index in range(0, 5_000, 3):
                    many[index]
                assert descriptors() == 1, "the folder"
                for batch in DataLoader(many, 500, shuffle=True, num_workers=2, collate_fn=many.collate):
                    pass
                assert descriptors() == 1, "workers open their own"

                # As many as there may be, and more: nobody is left without.
                few = [Counted(sys.argv[1] + "/few") for _ in range(8)]
                for data in few:
                    assert [data[index]["y"] for index in range(60)] == [index % 7 for index in range(60)]
                assert descriptors() <= 256 // 4 + len(few) + 1
                carried = pickle.loads(pickle.dumps(few[0]))
                assert descriptors() <= 256 // 4 + len(few) + 1
                del few[1:], carried, data
                assert descriptors() == 60 + 1, "all of the first one"
                for batch in DataLoader(few[0], 20, num_workers=2, collate_fn=lambda batch: batch):
                    # Those that were inherited are closed; there is the folder of `many` as well.
                    assert batch["descriptors"] <= 40 + 1, batch["descriptors"]
                del few, many
                assert descriptors() == 0
            """,
            tmp_path,
        )


class TestLoader:
    def test_an_epoch_in_order_equals_the_naive_one(self, nested):
        folder, files = nested
        loader = ptview.Loader(ptview.Dataset(folder), 5)
        assert len(loader) == 5
        assert_same_object(list(loader), list(DataLoader(Naive(files), 5)))
        assert_same_object(
            list(ptview.Loader(ptview.Dataset(folder), 5, drop_last=True)),
            list(DataLoader(Naive(files), 5, drop_last=True)),
        )

    def test_shuffles_are_functions_of_seed_and_epoch(self, simple):
        data = ptview.Dataset(simple[0])

        def order(loader):
            return torch.cat([batch["x"][:, 0, 0] for batch in loader]).int().tolist()

        loader = ptview.Loader(data, 8, shuffle=True, seed=3)
        first, second = order(loader), order(loader)
        assert sorted(first) == sorted(second) == list(range(30))
        assert first != second
        again = ptview.Loader(data, 5, shuffle=True, seed=3)
        assert order(again) == first
        again.set_epoch(1)
        assert order(again) == second
        again.set_epoch(0)
        assert order(again) == first
        assert order(ptview.Loader(data, 8, shuffle=True, seed=4)) != first
        windowed = order(ptview.Loader(data, 8, shuffle=True, window=10))
        assert sorted(windowed) == list(range(30)) and {number // 10 for number in windowed[:10]} in [{0}, {1}, {2}]

    def test_batches_that_are_held_are_not_written_over(self, tmp_path):
        # Large enough for their memory to be used again.
        folders.write(tmp_path, 60, lambda number: {"x": torch.full((256, 64), float(number))})
        data = ptview.Dataset(tmp_path)
        loader = ptview.Loader(data, 10, shuffle=True)
        for _ in range(3):
            held = [(batch["x"], batch["x"].clone()) for batch in loader]
            for batch, copy in held:
                assert torch.equal(batch, copy)
        one = next(iter(loader))["x"][3]
        value = one[0, 0].item()
        list(loader)
        assert (one == value).all()

    def test_memory_is_used_again_when_nobody_holds_it(self, tmp_path):
        folders.write(tmp_path, 60, lambda number: {"x": torch.full((256, 64), float(number))})
        places = set()
        batch = None
        for batch in ptview.Loader(ptview.Dataset(tmp_path), 5):
            places.add(batch["x"].data_ptr())
        assert batch is not None and len(places) <= 6

    def test_ragged_batches_that_differ_a_little_use_the_same_memory(self, tmp_path):
        folders.write(tmp_path, 11, lambda number: {"x": torch.full((100 + number, 1000), float(number))})
        data = ptview.Dataset(tmp_path, pad=ptview.pad())
        places = set()
        # Each batch is longer than all before it.
        for first in range(10):
            places.add(data.collate(data.__getitems__([first, first + 1]))["x"].data_ptr())
        assert len(places) == 1

    @pytest.mark.parametrize("batches", [0, 1, 3, 5])
    def test_resuming(self, simple, batches):
        data = ptview.Dataset(simple[0])
        loader = ptview.Loader(data, 6, shuffle=True, seed=9)
        list(loader)
        expected = list(ptview.Loader(data, 6, shuffle=True, seed=9).__iter__())
        loader.set_epoch(1)
        whole = list(loader)
        assert len(whole) == 5 and not torch.equal(whole[0]["x"], expected[0]["x"])
        loader.set_epoch(1)
        iterator = iter(loader)
        for _ in range(batches):
            next(iterator)
        state = pickle.loads(pickle.dumps(loader.state_dict()))
        del iterator
        other = ptview.Loader(data, 6, shuffle=True, seed=9)
        other.load_state_dict(state)
        assert_same_object(list(other), whole[batches:])
        # Then epochs go on as if nothing had been.
        assert_same_object(list(other), list(loader))
        with pytest.raises(ptview.Error, match="seed"):
            ptview.Loader(data, 6, shuffle=True, seed=8).load_state_dict(state)
        with pytest.raises(ptview.Error, match="samples"):
            ptview.Loader(data[:10], 6, shuffle=True, seed=9).load_state_dict(state)
        with pytest.raises(ptview.Error, match=r"window None; .* window 12"):
            ptview.Loader(data, 6, shuffle=True, seed=9, window=12).load_state_dict(state)
        with pytest.raises(ptview.Error, match="seed None"):
            ptview.Loader(data, 6).load_state_dict(state)

    def test_a_state_at_the_end_of_an_epoch_is_the_start_of_the_next(self, simple):
        data = ptview.Dataset(simple[0])
        loader = ptview.Loader(data, 6, shuffle=True)
        list(loader)
        other = ptview.Loader(data, 6, shuffle=True)
        other.load_state_dict(loader.state_dict())
        assert_same_object(list(other), list(loader))

    def test_ranks_share_the_samples(self, simple):
        data = ptview.Dataset(simple[0])

        def samples(rank, world_size, **options):
            loader = ptview.Loader(data, 4, shuffle=True, rank=rank, world_size=world_size, **options)
            return torch.cat([batch["x"][:, 0, 0] for batch in loader]).int().tolist()

        parts = [samples(rank, 3) for rank in range(3)]
        assert sorted(itertools.chain(*parts)) == list(range(30))
        parts = [samples(rank, 4) for rank in range(4)]
        assert [len(part) for part in parts] == [8] * 4 and set(itertools.chain(*parts)) == set(range(30))
        parts = [samples(rank, 4, drop_last=True) for rank in range(4)]
        assert [len(part) for part in parts] == [4] * 4
        with pytest.raises(ptview.Error, match="rank 3"):
            list(ptview.Loader(data, 4, rank=3, world_size=3))
        with pytest.raises(ValueError, match="together"):
            ptview.Loader(data, 4, rank=1)

    def test_two_ranks_under_torchrun(self, simple, tmp_path):
        program = tmp_path / "train.py"
        program.write_text(
            textwrap.dedent(
                """
                import sys, torch, torch.distributed as dist, ptview
                dist.init_process_group("gloo")
                data = ptview.Dataset(sys.argv[1])
                loader = ptview.Loader(data, 4, shuffle=True, seed=5)
                assert (loader.rank, loader.world_size) == (dist.get_rank(), 2)
                for epoch in range(2):
                    mine = torch.cat([batch["x"][:, 0, 0] for batch in loader])
                    both = [torch.empty_like(mine) for _ in range(2)]
                    dist.all_gather(both, mine)
                    assert torch.cat(both).sort().values.tolist() == list(range(30)), both
                dist.destroy_process_group()
                """
            )
        )
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
        done = subprocess.run([*launch, program, simple[0]], capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr

    def test_samples_that_cannot_be_read(self, tmp_path):
        files = folders.write(tmp_path, 12, folders.simple)
        data = ptview.Dataset(tmp_path)
        os.remove(files[4])
        os.truncate(files[9], 100)
        with pytest.raises(FileNotFoundError, match=r"00004\.pt"):
            list(ptview.Loader(data, 4))
        loader = ptview.Loader(data, 4, on_error="skip")
        with pytest.warns(UserWarning, match=r"00004\.pt"):
            batches = list(loader)
        assert [len(batch["y"]) for batch in batches] == [4, 3, 3]
        assert torch.cat([batch["x"][:, 0, 0] for batch in batches]).tolist() == [0, 1, 2, 3, 5, 6, 7, 8, 10, 11]
        assert [(path, type(error)) for path, error in loader.skipped] == [
            (files[4], FileNotFoundError),
            (files[9], ptview.StaleIndexError),
        ]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Batches of which nothing is left do not come.
            assert [len(batch["y"]) for batch in ptview.Loader(data, 1, on_error="skip")] == [1] * 10

    def test_padded_and_ragged_batches(self, tmp_path):
        files = folders.write(tmp_path, 12, folders.ragged)
        padded = ptview.Dataset(tmp_path, keys=["tokens", "embedding", "label"], pad=ptview.pad(5))
        for ours, theirs in zip(
            ptview.Loader(padded, 5), DataLoader(Naive(files), 5, collate_fn=pad_collate), strict=True
        ):
            theirs.pop("length")
            assert_same_object(ours, theirs)
        joined = ptview.Dataset(tmp_path, pad=ptview.ragged())
        values = torch.cat([batch["tokens"].values for batch in ptview.Loader(joined, 5)])
        assert torch.equal(values, torch.cat([torch.load(file)["tokens"] for file in files]))

    def test_images_of_any_size(self, tmp_path):
        files = folders.write(tmp_path, 11, folders.images)
        naive = Naive(files)
        for framework in ("torch", "numpy"):
            plain = ptview.Dataset(tmp_path, framework=framework)
            assert plain.fields[0].shape == (6, 7, 3) and plain.fields[0].ragged_dims == (0, 1)
            assert "[≤6, ≤7, 3]" in repr(plain)
            for sample, expected in zip((*plain, *plain.__getitems__(range(11))), [*naive, *naive], strict=True):
                assert sample["image"].shape == expected["image"].shape
                assert (torch.as_tensor(sample["image"]) == expected["image"]).all()
            with pytest.raises(ptview.Error, match=r"`image` have sizes \[2, 1, 3\] and \[5, 6, 3\].*pad"):
                plain.collate(plain.__getitems__([0, 1]))
            assert plain.collate(plain.__getitems__([1, 1]))["image"].shape == (2, 5, 6, 3)
        cropped = ptview.Dataset(tmp_path, transform=lambda sample: sample["image"][:2, :1])
        assert torch.equal(
            torch.cat(list(ptview.Loader(cropped, 4))), torch.stack([sample["image"][:2, :1] for sample in naive])
        )
        with pytest.raises(ptview.Error, match=r"dimensions \[0, 1\].*pad"):
            next(iter(ptview.Loader(ptview.Dataset(tmp_path, pad=ptview.ragged()), 4)))

        padded = ptview.Dataset(tmp_path, pad=ptview.pad(value=-1, lengths=True, mask=True))
        batches = [next(iter(loader)) for loader in (ptview.Loader(padded, 11), ptview.IterableDataset(padded, 11))]
        batches.append(padded.collate([padded[number] for number in [2, 2]]))
        batches.append(padded.collate([*padded.__getitems__([2, 2])]))
        for batch, images in zip(batches, [[*naive], [*naive], [naive[2]] * 2, [naive[2]] * 2], strict=True):
            shape = [max(sample["image"].shape[dim] for sample in images) for dim in range(3)]
            expected = torch.full((len(images), *shape), -1.0)
            mask = torch.zeros(len(images), *shape[:2], dtype=torch.bool)
            for row, sample in enumerate(images):
                height, width, _ = sample["image"].shape
                expected[row, :height, :width] = sample["image"]
                mask[row, :height, :width] = True
            assert torch.equal(batch["image"], expected) and torch.equal(batch["image_mask"], mask)
            assert batch["image_lengths"].tolist() == [list(sample["image"].shape) for sample in images]

    @pytest.mark.parametrize("framework", ["torch", "numpy"])
    @pytest.mark.parametrize("to", [(4, 3), (8, 9), (None, 4), (3, None), (None, None)])
    def test_images_padded_to_a_size(self, tmp_path, framework, to):
        images = [sample["image"] for sample in Naive(folders.write(tmp_path, 11, folders.images))]
        pad = ptview.pad(to, value=-1, lengths=True, mask=True)
        data = ptview.Dataset(tmp_path, pad=pad, framework=framework)
        for start, batch in zip((0, 6), ptview.Loader(data, 6), strict=True):
            here = images[start : start + 6]
            room = [size or max(image.shape[dim] for image in here) for dim, size in enumerate(to)]

            def padded(image, value, room=room):
                # Negative padding cuts.
                height, width = (size - has for size, has in zip(room, image.shape, strict=False))
                return torch.nn.functional.pad(image, (0, 0, 0, width, 0, height), value=value)

            assert torch.equal(torch.as_tensor(batch["image"]), torch.stack([padded(image, -1) for image in here]))
            own = torch.stack([padded(torch.ones_like(image), 0)[..., 0] > 0 for image in here])
            assert torch.equal(torch.as_tensor(batch["image_mask"]), own)
            kept = [[min(has, size) for has, size in zip(image.shape, [*room, 3], strict=True)] for image in here]
            assert batch["image_lengths"].tolist() == kept
        one = ptview.Dataset(tmp_path, pad=ptview.pad((8, 9)))[1]["image"]
        assert one.shape == (8, 9, 3) and torch.equal(one[:5, :6], images[1]) and one.sum() == images[1].sum()

    def test_sizes_that_are_refused(self, tmp_path):
        folders.write(tmp_path, 6, folders.images)
        for to, count in [((), 0), ((4,), 1), ((4, None, 3), 3)]:
            with pytest.raises(ptview.Error, match=rf"`image` differ in 2 .*\[0, 1\]; padding gives {count} lengths"):
                ptview.Dataset(tmp_path, pad=ptview.pad(to))
        with pytest.raises(ptview.Error, match="5 lengths"):
            ptview.pad((1, 2, 3, 4, 5))
        for to in [(0, 1), (1.5, None), (True, 1), ("longest", 1), [1, 2], "shortest"]:
            with pytest.raises(ValueError, match="longest"):
                ptview.pad(to)
        data = ptview.Dataset(tmp_path, pad=ptview.pad((8, 4), truncate=False))
        assert data.collate(data.__getitems__([0, 2]))["image"].shape == (2, 8, 4, 3)
        with pytest.raises(ptview.Error, match="sample 1: `image` has 6 steps along dimension 1, longer than 4"):
            data.__getitems__([0, 1])
        with pytest.raises(ptview.Error, match="sample 1: `image` has 5 steps, longer than 4"):
            ptview.Dataset(tmp_path, pad=ptview.pad((4, 9), truncate=False))[1]
        # A data set that was pickled has the same padding.
        assert pickle.loads(pickle.dumps(data))[0]["image"].shape == (8, 4, 3)

    def test_a_transform(self, simple):
        data = ptview.Dataset(simple[0], transform=PerFile())
        batch = next(iter(ptview.Loader(data, 3)))
        assert_same_object(batch["process"], torch.tensor([os.getpid()] * 3))
        assert batch["x"][2, 0, 0] == 4

    def test_a_device(self, simple):
        # There is one everywhere: it keeps shapes and no values.
        batch = next(iter(ptview.Loader(ptview.Dataset(simple[0]), 3, device="meta")))
        assert (batch["x"].device.type, batch["y"].device.type) == ("meta", "meta")

    def test_what_is_refused(self, simple):
        data = ptview.Dataset(simple[0])
        for options in [{"batch_size": 0}, {"prefetch": 0}, {"threads": 0}, {"on_error": "ignore"}]:
            with pytest.raises(ValueError, match=next(iter(options))):
                ptview.Loader(data, **{"batch_size": 2, **options})


class TestThreads:
    def test_threads_end_with_their_iterator(self, simple):
        def readers():
            names = [Path(f"/proc/self/task/{task}/comm").read_text() for task in os.listdir("/proc/self/task")]
            return sum(name.startswith("ptview") for name in names)

        data = ptview.Dataset(simple[0])
        list(ptview.Loader(data, 4))
        before = readers()
        for _ in range(5):
            iterator = iter(ptview.Loader(data, 2, threads=3))
            next(iterator)
            del iterator
        gc.collect()
        deadline = time.monotonic() + 5
        while readers() > before and time.monotonic() < deadline:
            time.sleep(0.01)
        assert readers() <= before

    def test_several_iterators_at_once(self, simple):
        data = ptview.Dataset(simple[0])
        results: dict[int, list] = {}

        def work(number):
            results[number] = list(ptview.Loader(data, 4, shuffle=True, seed=1))

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for number in range(4):
            assert_same_object(results[number], results[0])

    def test_a_forked_child_has_threads_of_its_own(self, simple):
        data = ptview.Dataset(simple[0])
        loader = ptview.Loader(data, 4)
        iterator = iter(loader)
        next(iterator)
        expected = data.collate(data.__getitems__(range(30)))

        def child(queue):
            samples = data.collate(data.__getitems__(range(30)))
            batches = sum(len(batch["y"]) for batch in ptview.Loader(data, 4))
            try:
                next(iterator)
                gone = "no error"
            except ptview.Error as error:
                gone = str(error)
            queue.put((samples["x"].tolist(), batches, gone))

        context = multiprocessing.get_context("fork")
        queue = context.Queue()
        process = context.Process(target=child, args=(queue,))
        process.start()
        values, batches, gone = queue.get(timeout=30)
        process.join(10)
        assert process.exitcode == 0
        assert values == expected["x"].tolist() and batches == 30 and "forked" in gone
        # And here it goes on.
        assert sum(len(batch["y"]) for batch in iterator) == 26

    def test_forks_while_batches_are_read(self, simple):
        data = ptview.Dataset(simple[0])
        context = multiprocessing.get_context("fork")

        def child():
            assert len(list(ptview.Loader(data, 8))) == 4
            os._exit(0)

        for _ in range(20):
            iterator = iter(ptview.Loader(data, 1, prefetch=8))
            next(iterator)
            process = context.Process(target=child)
            process.start()
            process.join(20)
            assert process.exitcode == 0

    def test_control_c(self, tmp_path):
        # A pipe is a file that takes forever to open.
        files = folders.write(tmp_path, 4, folders.simple)
        program = f"""
            import os, sys, threading, time, ptview
            data = ptview.Dataset({str(tmp_path)!r})
            os.remove({files[3]!r})
            os.mkfifo({files[3]!r})
            print("ready", flush=True)
            try:
                for batch in ptview.Loader(data, 1, prefetch=1):
                    pass
            except KeyboardInterrupt:
                print("stopped", flush=True)
                os._exit(7)
        """
        process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            time.sleep(1)
            process.send_signal(signal.SIGINT)
            assert process.communicate(timeout=30) == ("stopped\n", None)
            assert process.returncode == 7
        finally:
            process.kill()

    def test_exit_in_the_middle_of_an_epoch(self, simple):
        run(
            """
            import sys, ptview
            iterator = iter(ptview.Loader(ptview.Dataset(sys.argv[1]), 2, prefetch=4))
            next(iterator)
            """,
            simple[0],
        )


class TestIterableDataset:
    @pytest.mark.parametrize("workers", [0, 1, 3])
    def test_every_batch_once_in_the_same_order(self, simple, workers):
        data = ptview.Dataset(simple[0])
        batches = ptview.IterableDataset(data, 4, shuffle=True, seed=2)
        loader = DataLoader(batches, batch_size=None, num_workers=workers, persistent_workers=workers > 1)
        expected = ptview.Loader(data, 4, shuffle=True, seed=2)
        assert len(loader) == len(batches) == 8
        for epoch in range(2):
            batches.set_epoch(epoch)
            assert_same_object(list(loader), list(expected))

    def test_spawned_workers(self, simple):
        data = ptview.Dataset(simple[0])
        batches = ptview.IterableDataset(data, 4, window=8, shuffle=True)
        loader = DataLoader(batches, batch_size=None, num_workers=1, multiprocessing_context="spawn")
        assert_same_object(list(loader), list(ptview.Loader(data, 4, window=8, shuffle=True)))

    @pytest.mark.parametrize("workers", [0, 2])
    def test_resuming_with_torchdata(self, simple, workers):
        stateful = pytest.importorskip("torchdata.stateful_dataloader", reason="torchdata is not installed")
        data = ptview.Dataset(simple[0])

        def loader():
            batches = ptview.IterableDataset(data, 4, shuffle=True, seed=2)
            batches.set_epoch(3)
            return stateful.StatefulDataLoader(batches, batch_size=None, num_workers=workers)

        whole = list(loader())
        first = loader()
        iterator = iter(first)
        for _ in range(3):
            next(iterator)
        state = first.state_dict()
        del iterator
        second = loader()
        second.load_state_dict(state)
        assert_same_object(list(second), whole[3:])

    def test_states_of_other_batches_are_refused(self, simple):
        data = ptview.Dataset(simple[0])
        state = ptview.IterableDataset(data, 4, shuffle=True).state_dict()
        ptview.IterableDataset(data, 4, shuffle=True).load_state_dict(state)
        for other in ({"seed": 1}, {"window": 8}, {"batch_size": 5}, {"shuffle": False}):
            with pytest.raises(ptview.Error, match="the state is of"):
                ptview.IterableDataset(data, **{"batch_size": 4, "shuffle": True, **other}).load_state_dict(state)


def test_default_collate_is_the_judge(nested):
    # That the other tests compare with what they should.
    folder, files = nested
    data = ptview.Dataset(folder)
    assert_same_object(next(iter(ptview.Loader(data, 23))), default_collate([torch.load(file) for file in files]))
