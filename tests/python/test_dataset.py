"""`ptview.Dataset`: what its samples and batches are, with torch.load and default_collate as the judges."""

import copy
import gc
import os
import pickle
import shutil
import subprocess
import sys
import textwrap
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import ptview
import pytest
import torch
from torch.utils.data import DataLoader, default_collate

import folders
from same import assert_same_object


def loaded(files) -> list:
    return [torch.load(file, weights_only=True) for file in files]


@pytest.fixture(scope="module")
def ragged(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ragged")
    return folder, folders.write(folder, 12, folders.ragged)


class TestSamples:
    def test_a_sample_is_what_torch_load_gives(self, nested):
        folder, files = nested
        data = ptview.Dataset(folder)
        assert data.files == files
        assert len(data) == len(files)
        for sample, expected in zip(data, loaded(files), strict=True):
            assert_same_object(sample, expected)

    def test_a_bare_tensor(self, tmp_path):
        files = folders.write(tmp_path, 3, lambda number: torch.full((2,), number))
        data = ptview.Dataset(tmp_path)
        assert_same_object(list(data), loaded(files))
        assert_same_object(data.collate(data.__getitems__([0, 2])), torch.tensor([[0, 0], [2, 2]]))

    def test_parts_that_no_batch_holds(self, tmp_path):
        def sample(number):
            return {
                "x": torch.full((2,), float(number), requires_grad=True),
                "p": torch.nn.Parameter(torch.ones(2)),
                "none": None,
                "deep": {"empty": [], "big": 2**100 + number, "bytes": b"abc"},
                "view": torch.arange(6.0).view(2, 3).t() + number,
                "nothing": torch.empty(0, 3),
                (1, "odd key"): number,
            }

        files = folders.write(tmp_path, 3, sample)
        assert_same_object(list(ptview.Dataset(tmp_path)), loaded(files))

    def test_files_that_are_not_alike(self, tmp_path):
        def sample(number):
            extra = {"meta": {"tag": number}, "mask": torch.ones(2, 2)} if number == 2 else {}
            return {"x": torch.full((2,), float(number))} | extra

        files = folders.write(tmp_path, 4, sample)
        data = ptview.Dataset(tmp_path)
        assert_same_object(list(data), loaded(files))
        assert_same_object(data.collate(data.__getitems__([0, 2]))["x"], torch.tensor([[0.0, 0], [2, 2]]))

    def test_shared_parts_of_a_sample(self, tmp_path):
        shared = {"a": torch.arange(3), "n": 5}
        files = folders.write(tmp_path, 2, lambda number: {"one": shared, "two": [shared, shared["a"]]})
        assert_same_object(list(ptview.Dataset(tmp_path)), loaded(files))

    def test_a_storage_holds_its_tensor_and_no_more(self, nested, tmp_path):
        sample = ptview.Dataset(nested[0])[3]
        for tensor in [sample["image"], sample["half"], sample["pair"][0], *sample["target"]["boxes"]]:
            assert tensor.untyped_storage().nbytes() == tensor.nbytes
        folders.write(tmp_path, 2, folders.rows)
        row = ptview.Dataset(tmp_path, mode="row")[1]
        assert row["x"].untyped_storage().nbytes() == row["x"].nbytes

    def test_a_sample_outlives_the_data_set_and_can_be_written_to(self, simple):
        _, files = simple
        data = ptview.Dataset(files)
        sample = data[5]
        del data
        gc.collect()
        sample["x"] += 1
        assert torch.equal(sample["x"], torch.full((4, 3), 6.0))
        assert torch.equal(torch.load(files[5])["x"], torch.full((4, 3), 5.0))

    def test_positions(self, simple):
        folder, files = simple
        data = ptview.Dataset(folder)
        assert data[-1]["y"] == torch.load(files[-1])["y"]
        assert data[np.int64(3)]["x"][0, 0] == 3
        assert data[torch.tensor(3)]["x"][0, 0] == 3
        for beyond in [30, -31, 2**70]:
            with pytest.raises(IndexError):
                data[beyond]
        with pytest.raises(IndexError, match="30"):
            data.__getitems__([1, 30])
        with pytest.raises(TypeError):
            data["x"]
        part = data[4:20:5]
        assert isinstance(part, ptview.Dataset)
        assert [sample["x"][0, 0].item() for sample in part] == [4, 9, 14, 19]
        assert [sample["x"][0, 0].item() for sample in data[::-1][:2]] == [29, 28]
        assert part.files == files[4:20:5]


class TestWhatIsASample:
    def test_rows(self, tmp_path):
        files = folders.write(tmp_path, 5, folders.rows)
        expected = [
            {"x": file["x"][row], "t": file["t"][row]} for file in loaded(files) for row in range(len(file["x"]))
        ]
        data = ptview.Dataset(tmp_path, mode="row")
        assert_same_object(list(data), expected)
        order = [7, 0, 3, 3, 11]
        assert_same_object(
            data.collate(data.__getitems__(order)), default_collate([expected[number] for number in order])
        )

    def test_labels_of_a_file_are_those_of_its_rows(self, tmp_path):
        folders.write(tmp_path, 3, lambda number: {"x": torch.ones(2, 4) * number, "label": f"file {number}"})
        data = ptview.Dataset(tmp_path, mode="row")
        assert data[3]["label"] == "file 1"
        assert data.column("label").tolist() == ["file 0", "file 0", "file 1", "file 1", "file 2", "file 2"]
        assert len(data.filter(label="file 2")) == 2

    def test_tensors(self, tmp_path):
        files = folders.write(tmp_path, 5, folders.tensors)
        expected = [tensor for file in loaded(files) for tensor in file.values()]
        data = ptview.Dataset(tmp_path, mode="tensor")
        assert_same_object(list(data), expected)
        assert_same_object(data.collate(data.__getitems__([4, 1])), torch.stack([expected[4], expected[1]]))

    def test_an_unknown_mode(self, simple):
        with pytest.raises(ValueError, match="mode"):
            ptview.Dataset(simple[0], mode="page")

    def test_some_keys(self, nested):
        folder, files = nested
        data = ptview.Dataset(folder, keys=["image", "target.label"])
        expected = [
            type(file)(image=file["image"], target={"label": file["target"]["label"]}) for file in loaded(files)
        ]
        assert_same_object(list(data), expected)
        assert_same_object(data.collate(data.__getitems__([1, 2])), default_collate(expected[1:3]))
        with pytest.raises(ptview.Error, match="colour"):
            ptview.Dataset(folder, keys=["colour"])

    def test_where_files_come_from(self, simple, tmp_path):
        folder, files = simple
        expected = [torch.load(file)["y"] for file in files]
        given = [files[number] for number in (7, 2, 2, 19)]
        data = ptview.Dataset(given)
        assert data.files == given
        assert [sample["y"] for sample in data] == [expected[number] for number in (7, 2, 2, 19)]
        assert ptview.Dataset(f"{folder}/0000*.pt").files == files[:10]
        assert ptview.Dataset(files[3]).files == [files[3]]
        with pytest.raises(FileNotFoundError):
            ptview.Dataset(tmp_path / "nowhere")
        with pytest.raises(FileNotFoundError, match="nowhere"):
            ptview.Dataset([files[0], tmp_path / "nowhere.pt"])
        with pytest.raises(ptview.Error, match=r"nothing.*\*"):
            ptview.Dataset(f"{folder}/nothing-*.pt")

    def test_rows_of_a_list_of_files_keep_its_order(self, tmp_path):
        files = folders.write(tmp_path, 4, folders.rows)
        given = [files[2], files[0], files[2]]
        expected = [row for file in loaded(given) for row in file["t"].tolist()]
        assert [sample["t"].item() for sample in ptview.Dataset(given, mode="row")] == expected

    def test_through_an_index(self, tmp_path):
        files = folders.write(tmp_path, 6, folders.simple)
        (report,) = ptview.index(tmp_path)
        more = folders.write(tmp_path, 7, folders.simple)
        with pytest.warns(UserWarning, match="of other files than are there now"):
            folder = ptview.Dataset(tmp_path)
        # What came later is not in the index, but in the folder.
        for data, there in [(ptview.Dataset(report.path), files), (folder, more)]:
            assert data.files == there
            assert_same_object(list(data), loaded(there))


class TestBatches:
    def test_collate_gives_what_default_collate_gives_of_loaded_files(self, nested):
        folder, files = nested
        data = ptview.Dataset(folder)
        order = [5, 0, 22, 5]
        expected = default_collate(loaded(files[number] for number in order))
        assert_same_object(data.collate(data.__getitems__(order)), expected)
        assert_same_object(default_collate(data.__getitems__(order)), expected)
        assert_same_object(data.collate([data[number] for number in order]), expected)

    def test_samples_of_a_batch(self, nested):
        folder, files = nested
        samples = ptview.Dataset(folder).__getitems__([4, 2, 9])
        assert isinstance(samples, Sequence)
        assert len(samples) == 3
        for _ in range(2):
            assert_same_object(list(samples), loaded([files[4], files[2], files[9]]))
        assert_same_object(samples[-1], loaded([files[9]])[0])
        assert_same_object(samples[0:2], loaded([files[4], files[2]]))
        with pytest.raises(IndexError):
            samples[3]

    def test_a_batch_is_one_buffer_that_is_not_written_over(self, simple):
        data = ptview.Dataset(simple[0])
        held, copies = [], []
        for start in range(0, 30, 5):
            batch = data.collate(data.__getitems__(range(start, start + 5)))
            held.append(batch)
            copies.append(copy.deepcopy(batch))
        assert_same_object(held, copies)

    def test_a_batch_of_nothing(self, simple):
        data = ptview.Dataset(simple[0])
        assert len(data.__getitems__([])) == 0

    def test_dtypes(self, tmp_path):
        typed = [
            torch.float64, torch.float16, torch.bfloat16, torch.int32, torch.int8, torch.bool, torch.complex64,
            torch.complex128, torch.float8_e4m3fn, torch.float8_e5m2,
        ]  # fmt: skip
        # Old versions of torch lack them.
        typed += [getattr(torch, name) for name in ("uint16", "uint32", "uint64") if hasattr(torch, name)]

        def sample(number):
            raw = torch.arange(number, number + 32, dtype=torch.uint8)
            return {
                str(dtype): torch.tensor([True, False]) if dtype == torch.bool else raw.clone().view(dtype)
                for dtype in typed
            }

        files = folders.write(tmp_path, 3, sample)
        data = ptview.Dataset(tmp_path)
        batch = data.collate(data.__getitems__([0, 1, 2]))
        for name, tensor in batch.items():
            stacked = torch.stack([file[name] for file in loaded(files)])
            assert tensor.dtype == stacked.dtype
            assert torch.equal(tensor.view(torch.uint8), stacked.view(torch.uint8))

    def test_labels_some_files_lack(self, tmp_path):
        folders.write(tmp_path, 3, lambda number: {"x": torch.ones(1), "label": None if number == 1 else number})
        data = ptview.Dataset(tmp_path)
        assert data.collate(data.__getitems__([0, 1, 2]))["label"] == [0, None, 2]
        assert data.column("label").tolist() == [0, None, 2]

    def test_numbers_of_two_kinds(self, tmp_path):
        folders.write(tmp_path, 2, lambda number: {"x": torch.ones(1), "score": 1 if number else 0.5})
        data = ptview.Dataset(tmp_path)
        assert data.column("score").tolist() == [0.5, 1.0]
        assert_same_object(
            data.collate(data.__getitems__([0, 1]))["score"], torch.tensor([0.5, 1.0], dtype=torch.float64)
        )

    def test_a_transform_sees_every_sample(self, nested):
        folder, files = nested

        def flip(sample):
            return {"image": sample["image"].flip(0), "label": sample["target"]["label"] + 100}

        data = ptview.Dataset(folder, transform=flip)
        expected = [flip(file) for file in loaded(files)]
        assert_same_object(data[4], expected[4])
        assert_same_object(data.collate(data.__getitems__([2, 3])), default_collate(expected[2:4]))
        assert_same_object(default_collate(data.__getitems__([2, 3])), default_collate(expected[2:4]))

    def test_floats_of_another_size(self, tmp_path):
        def sample(number):
            return {
                "half": torch.full((2,), number + 0.5, dtype=torch.float16),
                "brain": torch.full((2,), number + 0.5, dtype=torch.bfloat16),
                "image": torch.full((2,), 51 * number, dtype=torch.uint8),
            }

        folders.write(tmp_path, 3, sample)
        data = ptview.Dataset(tmp_path, dtype=torch.float32)
        assert_same_object(data[1], {"half": torch.full((2,), 1.5), "brain": torch.full((2,), 1.5),
                                     "image": torch.full((2,), 51, dtype=torch.uint8)})  # fmt: skip
        data = ptview.Dataset(tmp_path, keys=["image"], dtype={"image": ("float32", 1 / 255)})
        batch = data.collate(data.__getitems__([0, 1, 2]))["image"]
        torch.testing.assert_close(batch, torch.tensor([[0.0, 0.0], [0.2, 0.2], [0.4, 0.4]]))
        with pytest.raises(ValueError, match="float32"):
            ptview.Dataset(tmp_path, dtype="int32")
        with pytest.raises(ptview.Error, match="colour"):
            ptview.Dataset(tmp_path, dtype={"colour": "float32"})


class TestRagged:
    def test_samples_are_as_long_as_they_are(self, ragged):
        folder, files = ragged
        data = ptview.Dataset(folder)
        assert_same_object(list(data), loaded(files))
        assert_same_object(list(data.__getitems__([3, 1])), loaded([files[3], files[1]]))
        with pytest.raises(ptview.Error, match=r"tokens.*pad"):
            data.collate(data.__getitems__([3, 1]))

    @pytest.mark.parametrize("to", ["longest", 4, 20])
    @pytest.mark.parametrize("side", ["right", "left"])
    @pytest.mark.parametrize("mode", ["constant", "zero", "reflect", "replicate"])
    def test_padding(self, ragged, to, side, mode):
        folder, files = ragged
        order = [0, 1, 2, 9, 5]
        value = 7 if mode == "constant" else 0
        pad = ptview.pad(to, mode=mode, value=value, side=side, lengths=True, mask=True)
        batch = (data := ptview.Dataset(folder, pad=pad)).collate(data.__getitems__(order))
        samples = loaded(files[number] for number in order)
        longest = max(len(sample["tokens"]) for sample in samples) if to == "longest" else to
        padded = [pad_naively(sample["tokens"].numpy(), longest, mode, value, side) for sample in samples]
        assert batch["tokens"].tolist() == [array.tolist() for array in padded]
        wide = [pad_naively(sample["embedding"].numpy(), longest, mode, value, side) for sample in samples]
        assert batch["embedding"].tolist() == [array.tolist() for array in wide]
        kept = [min(len(sample["tokens"]), longest) for sample in samples]
        assert_same_object(batch["tokens_lengths"], torch.tensor(kept))
        mask = torch.arange(longest)[None, :] < torch.tensor(kept)[:, None]
        assert_same_object(batch["embedding_mask"], mask.flip(1) if side == "left" else mask)
        assert_same_object(batch["label"], torch.tensor(order))
        assert_same_object(default_collate(data.__getitems__(order)), batch)

    def test_too_long_samples_can_be_refused(self, ragged):
        data = ptview.Dataset(ragged[0], pad=ptview.pad(4, truncate=False))
        with pytest.raises(ptview.Error, match="longer than 4"):
            data.collate(data.__getitems__([0, 1]))
        assert data.collate(data.__getitems__([0]))["tokens"].shape == (1, 4)

    def test_names_of_lengths_and_masks(self, ragged):
        data = ptview.Dataset(ragged[0], keys=["tokens", "label"], pad=ptview.pad(lengths="n", mask="attention_mask"))
        batch = data.collate(data.__getitems__([0, 1]))
        assert list(batch) == ["tokens", "label", "n", "attention_mask"]
        assert batch["n"].tolist() == [1, 6]
        with pytest.raises(ValueError, match="lengths=True"):
            ptview.Dataset(ragged[0], pad=ptview.pad(lengths="n"))

    def test_lengths_of_bare_tensors(self, tmp_path):
        folders.write(tmp_path, 3, lambda number: torch.ones(number + 1))
        data = ptview.Dataset(tmp_path, pad=ptview.pad(lengths=True))
        values, lengths = data.collate(data.__getitems__([0, 2]))
        assert values.tolist() == [[1, 0, 0], [1, 1, 1]]
        assert lengths.tolist() == [1, 3]

    def test_values_and_offsets(self, ragged):
        folder, files = ragged
        data = ptview.Dataset(folder, pad=ptview.ragged())
        batch = data.collate(data.__getitems__([3, 1]))
        samples = loaded([files[3], files[1]])
        assert isinstance(batch["tokens"], ptview.Ragged)
        assert_same_object(batch["tokens"].values, torch.cat([sample["tokens"] for sample in samples]))
        assert_same_object(batch["tokens"].offsets, torch.tensor([0, 7, 13]))
        assert_same_object(batch["embedding"].values, torch.cat([sample["embedding"] for sample in samples]))
        assert_same_object(list(data.__getitems__([3, 1])), samples)

    @pytest.mark.skipif(not hasattr(torch.nested, "nested_tensor_from_jagged"), reason="this torch has none")
    def test_nested_tensors(self, ragged):
        folder, files = ragged
        data = ptview.Dataset(folder, pad=ptview.ragged("nested"))
        batch = data.collate(data.__getitems__([3, 1]))
        assert batch["tokens"].is_nested
        for ours, file in zip(batch["embedding"].unbind(), loaded([files[3], files[1]]), strict=True):
            assert_same_object(ours, file["embedding"])

    def test_what_pad_refuses(self, ragged):
        for arguments in [("tallest",), (-1,), (0,), (2.5,)]:
            with pytest.raises(ValueError, match="longest"):
                ptview.pad(*arguments)
        with pytest.raises(ValueError, match="mode"):
            ptview.pad(mode="mirror")
        with pytest.raises(ValueError, match="side"):
            ptview.pad(side="top")
        with pytest.raises(ValueError, match="layout"):
            ptview.ragged("columns")
        with pytest.raises(TypeError, match=r"ptview\.pad"):
            ptview.Dataset(ragged[0], pad=4)


def pad_naively(array, length, mode, value, side):
    """numpy as the judge of padding."""
    kept = array[max(0, len(array) - length) :] if side == "left" else array[:length]
    missing = length - len(kept)
    width = [(missing, 0) if side == "left" else (0, missing)] + [(0, 0)] * (kept.ndim - 1)
    if mode in ("constant", "zero"):
        return np.pad(kept, width, constant_values=value)
    # numpy wants more than one step to reflect at.
    return np.pad(kept, width, mode="edge" if mode == "replicate" or len(kept) == 1 else "reflect")


class TestColumns:
    def test_a_column_is_read_from_the_index_alone(self, tmp_path):
        files = folders.write(tmp_path, 9, folders.nested)
        data = ptview.Dataset(tmp_path)
        assert data.columns == ["target.label", "target.3", "pair.1", "name"]
        for file in files:
            os.remove(file)
        label = data.column("target.label")
        assert (label.dtype, label.tolist()) == (np.int64, [number % 5 for number in range(9)])
        assert (data.column("target.3").dtype, data.column("target.3")[3]) == (np.float64, 1.5)
        assert (data.column("pair.1").dtype, data.column("pair.1")[:2].tolist()) == (np.bool_, [True, False])
        assert data.column("name").tolist() == [f"sample {number}" for number in range(9)]
        with pytest.raises(KeyError, match="colour"):
            data.column("colour")

    def test_filters(self, nested):
        folder, files = nested
        data = ptview.Dataset(folder)
        samples = loaded(files)

        def names(part):
            return [sample["name"] for sample in part]

        def expected(wanted):
            return [sample["name"] for sample in samples if wanted(sample)]

        assert names(data.filter({"target.label": 3})) == expected(lambda sample: sample["target"]["label"] == 3)
        assert names(data.filter(name=["sample 1", "sample 8"])) == ["sample 1", "sample 8"]
        big = data.filter({"target.3": lambda value: value > 8})
        assert names(big) == expected(lambda sample: sample["target"][3] > 8)
        assert names(big.filter({"pair.1": True})) == expected(
            lambda sample: sample["target"][3] > 8 and sample["pair"][1]
        )
        assert names(data.filter(data.column("target.label") == 2)) == expected(
            lambda sample: sample["target"]["label"] == 2
        )
        assert names(data.select([8, 3])) == ["sample 8", "sample 3"]
        assert names(ptview.Dataset(folder, where={"target.label": 3})) == names(data.filter({"target.label": 3}))
        assert big.column("target.3").min() > 8
        with pytest.raises(KeyError, match="colour"):
            data.filter(colour=1)
        with pytest.raises(ValueError, match="23"):
            data.filter(np.ones(5, bool))
        with pytest.raises(IndexError):
            data.select([23])

    def test_splits(self, simple):
        data = ptview.Dataset(simple[0])
        train, test = data.split(0.8, seed=1)
        assert (len(train), len(test)) == (24, 6)
        assert sorted(train.files + test.files) == data.files
        assert data.split(0.8, seed=1)[1].files == test.files
        assert data.split(0.8, seed=2)[1].files != test.files
        with pytest.raises(ValueError, match="fraction"):
            data.split(8)

    def test_fields(self, ragged):
        data = ptview.Dataset(ragged[0], pad=ptview.pad())
        assert [(field.name, field.dtype, field.shape, field.is_ragged) for field in data.fields] == [
            ("tokens", "int64", (9,), True),
            ("embedding", "float16", (9, 2), True),
        ]

    def test_repr(self, ragged):
        shown = repr(ptview.Dataset(ragged[0]))
        assert shown.startswith("ptview.Dataset(12 samples")
        assert "tokens: int64 [≤9]" in shown and "label" in shown


class TestMapped:
    def test_samples_and_batches_are_those_that_are_read(self, nested, ragged, tmp_path):
        folders.write(tmp_path / "rows", 7, folders.rows)
        folders.write(tmp_path / "tensors", 7, folders.tensors)
        data_sets = [
            (nested[0], {}),
            (nested[0], {"keys": ["half", "target.label"], "dtype": "float32", "where": {"target.label": [1, 2]}}),
            (ragged[0], {"pad": ptview.pad(mask=True)}),
            (tmp_path / "rows", {"mode": "row"}),
            (tmp_path / "tensors", {"mode": "tensor"}),
            (nested[1][::-1], {}),
        ]
        for paths, options in data_sets:
            read, mapped = ptview.Dataset(paths, **options), ptview.Dataset(paths, **options, mmap=True)
            for number in range(len(read)):
                assert_same_object(mapped[number], read[number])
            order = [*range(len(read))[::-1], 0, 0]
            batches = [data.collate(data.__getitems__(order)) for data in (mapped, read)]
            assert_same_object(*batches)

    @pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
    def test_which_files_are_mapped(self, tmp_path):
        folder = tmp_path / "rows"
        folders.write(folder, 3, folders.rows)
        torch.save({"x": torch.zeros(100_000, 3, 2), "t": torch.zeros(100_000, dtype=torch.int64)}, folder / "large.pt")

        def kept() -> tuple[list[str], list[str]]:
            """The files that are mapped, and those that are open."""
            maps = [line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines()]
            open_files = [os.path.realpath(descriptor) for descriptor in Path("/proc/self/fd").iterdir()]
            return tuple(
                sorted({Path(file).name for file in files if str(folder) in file}) for files in (maps, open_files)
            )

        def read(data: ptview.Dataset) -> ptview.Dataset:
            data.__getitems__(range(len(data)))
            return data

        names = ["00000.pt", "00001.pt", "00002.pt", "large.pt"]
        assert kept() == ([], [])
        rows = read(ptview.Dataset(folder, mode="row", mmap=True))
        assert kept() == (names, [])
        again = pickle.loads(pickle.dumps(rows.select(range(3))))
        del rows
        assert kept() == ([], [])
        read(again)
        assert kept() == (names[:2], []), "its samples are in two files"
        del again
        data = read(ptview.Dataset(folder, pad=ptview.pad(), mmap=True))
        assert kept() == (names, [])
        child = os.fork()
        if child == 0:
            # Maps are still there, also of files that are not.
            try:
                shutil.rmtree(folder)
                os._exit(0 if read(data) is data and kept()[1] == [] else 1)
            except BaseException:
                os._exit(2)
        assert os.waitpid(child, 0)[1] == 0
        del data
        assert kept() == ([], [])
        folders.write(folder, 3, folders.rows)
        read(ptview.Dataset(folder, mode="row"))
        assert kept()[0] == []

    @pytest.mark.parametrize("start", ["fork", "spawn"])
    def test_workers(self, tmp_path, start):
        folders.write(tmp_path, 9, folders.rows)
        data = ptview.Dataset(tmp_path, mode="row", mmap=True)
        expected = [data.collate(data.__getitems__(range(at, min(at + 5, len(data))))) for at in range(0, len(data), 5)]
        loader = DataLoader(data, 5, num_workers=2, collate_fn=data.collate, multiprocessing_context=start)
        assert_same_object(list(loader), expected)
        assert_same_object(list(ptview.Loader(data, 5)), expected)


class TestElsewhere:
    def test_pickling(self, tmp_path):
        files = folders.write(tmp_path, 20, folders.ragged)
        data = ptview.Dataset(tmp_path, pad=ptview.pad(lengths=True), where={"label": lambda value: value > 3})[::2]
        again = pickle.loads(pickle.dumps(data))
        assert_same_object(again.collate(again.__getitems__([0, 2])), data.collate(data.__getitems__([0, 2])))
        assert again.files == files[4::2]

    def test_a_pickle_carries_the_path_of_the_index(self, tmp_path):
        folders.write(tmp_path, 200, folders.simple)
        in_memory = len(pickle.dumps(ptview.Dataset(tmp_path)))
        ptview.index(tmp_path)
        data = ptview.Dataset(tmp_path)
        pickled = pickle.dumps(data)
        assert len(pickled) < 600 < in_memory
        assert_same_object(list(pickle.loads(pickled)), list(data))
        folders.write(tmp_path, 201, folders.simple)
        ptview.index(tmp_path)
        with pytest.raises(ptview.StaleIndexError, match="index"):
            pickle.loads(pickled)

    def test_a_relative_path_is_found_elsewhere(self, tmp_path, monkeypatch):
        folders.write(tmp_path / "data", 2, folders.simple)
        monkeypatch.chdir(tmp_path)
        data = ptview.Dataset("data")
        monkeypatch.chdir("/")
        assert data[1]["y"] == 1
        assert pickle.loads(pickle.dumps(data))[1]["y"] == 1

    def test_a_deleted_file(self, tmp_path):
        files = folders.write(tmp_path, 5, folders.simple)
        data = ptview.Dataset(tmp_path)
        os.remove(files[2])
        with pytest.raises(FileNotFoundError, match=r"00002\.pt"):
            data[2]
        with pytest.raises(FileNotFoundError, match=r"00002\.pt"):
            data.__getitems__([1, 2])

    def test_a_file_that_changed(self, tmp_path):
        files = folders.write(tmp_path, 5, folders.simple)
        data = ptview.Dataset(tmp_path)
        os.truncate(files[3], 500)
        with pytest.raises(ptview.StaleIndexError, match=r"00003\.pt"):
            data[3]
        with pytest.raises(ptview.StaleIndexError, match=r"00003\.pt"):
            data.__getitems__([3, 4])

    def test_a_file_that_is_no_sample(self, tmp_path):
        folders.write(tmp_path, 2, folders.simple)
        (tmp_path / "broken.pt").write_bytes(b"PK no")
        with pytest.raises(ptview.Error, match=r"broken\.pt"):
            ptview.Dataset([tmp_path / "00000.pt", tmp_path / "broken.pt"])

    def test_torch_is_not_imported_before_a_tensor_is_asked_for(self, simple):
        code = f"""
            import sys
            import ptview
            data = ptview.Dataset({str(simple[0])!r})
            data.column("y"), len(data), repr(data), data.split(0.5)
            assert "torch" not in sys.modules
            data[0]
            assert "torch" in sys.modules
        """
        subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, timeout=60)

    def test_without_torch_tensors_are_arrays(self, simple, ragged):
        code = f"""
            import sys
            sys.modules["torch"] = None
            import numpy as np
            import ptview
            data = ptview.Dataset({str(simple[0])!r})
            assert type(data[3]["x"]) is np.ndarray and data[3]["x"][0, 0] == 3
            batch = data.collate(data.__getitems__([1, 2]))
            assert batch["x"].shape == (2, 4, 3) and batch["y"].tolist() == [1, 2]
            padded = ptview.Dataset({str(ragged[0])!r}, pad=ptview.pad(mask=True))
            assert padded.collate(padded.__getitems__([0, 1]))["tokens_mask"].sum() == 7
            assert sum(len(batch["y"]) for batch in ptview.Loader(data, 7, shuffle=True)) == 30
        """
        subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, timeout=60)

    def test_a_torch_data_loader_needs_nothing_else(self, simple):
        folder, files = simple
        data = ptview.Dataset(folder)
        batches = list(DataLoader(data, batch_size=8, collate_fn=data.collate))
        assert_same_object(batches, list(DataLoader(loaded(files), batch_size=8)))


def test_the_files_that_are_there_are_the_data_set(tmp_path) -> None:
    for number in range(4):
        torch.save({"x": torch.full((2,), float(number))}, tmp_path / f"{number}.pt")
    ptview.index(tmp_path)
    (tmp_path / "1.pt").unlink()
    time.sleep(0.02)
    torch.save({"x": torch.full((2,), 9.0)}, tmp_path / "9.pt")
    with pytest.warns(UserWarning, match="of other files than are there now"):
        data = ptview.Dataset(tmp_path)
    for same in (data, pickle.loads(pickle.dumps(data))):
        assert [sample["x"][0].item() for sample in same] == [0, 2, 3, 9]
    # An index that is named is taken as it is.
    assert len(ptview.Dataset(tmp_path / "index.ptidx")) == 4
    ptview.index(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(ptview.Dataset(tmp_path)) == 4


def test_an_index_of_chosen_files_stays_that(tmp_path) -> None:
    for name in ("a", "b", "val"):
        torch.save({"x": torch.zeros(1)}, tmp_path / f"{name}.pt")
    ptview.index(tmp_path, exclude=["val*"])
    time.sleep(0.02)
    torch.save({"x": torch.zeros(1)}, tmp_path / "val2.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [os.path.basename(file) for file in ptview.Dataset(tmp_path).files] == ["a.pt", "b.pt"]


@pytest.mark.skipif(sys.platform != "linux", reason="maps are listed in /proc")
def test_data_sets_of_a_folder_share_one_map_of_its_index(tmp_path):
    first = folders.write(tmp_path, 1, folders.simple)[0]
    for number in range(1, 4_000):
        os.link(first, tmp_path / f"a file with a rather long name {number * 7919 % 4_001:05}.pt")
    ptview.index(tmp_path)
    index = tmp_path / "index.ptidx"
    assert index.stat().st_size > 64 << 10, "smaller ones are read"

    def maps() -> int:
        return sum(str(index) in line for line in Path("/proc/self/maps").read_text().splitlines())

    data = [ptview.Dataset(tmp_path) for _ in range(3)]
    assert maps() == 1
    # A new index is another one; the data sets keep theirs.
    os.link(first, tmp_path / "new.pt")
    ptview.index(tmp_path)
    data.append(ptview.Dataset(tmp_path))
    assert [len(one) for one in data] == [4_000, 4_000, 4_000, 4_001]
