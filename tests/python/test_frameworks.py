"""The recipes of docs/python.md for Lightning and accelerate, where these are installed."""

import ptview
import pytest
import torch
from torch.utils.data import DataLoader

import folders


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("simple")
    folders.write(folder, 32, folders.simple)
    return folder


def test_accelerate(folder):
    accelerate = pytest.importorskip("accelerate", reason="accelerate is not installed")
    accelerator = accelerate.Accelerator(cpu=True)
    data = ptview.Dataset(folder)
    loader = ptview.Loader(
        data,
        8,
        shuffle=True,
        seed=42,
        device=accelerator.device,
        rank=accelerator.process_index,
        world_size=accelerator.num_processes,
    )
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 1))
    model, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=1e-6))
    before = [parameter.detach().clone() for parameter in model.parameters()]
    seen = []
    for batch in loader:
        seen += batch["x"][:, 0, 0].int().tolist()
        accelerator.backward(model(batch["x"]).square().mean())
        optimizer.step()
        optimizer.zero_grad()
    assert sorted(seen) == list(range(32))
    assert any(not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))

    prepared = accelerator.prepare(DataLoader(data, 8, collate_fn=data.collate))
    assert [len(batch["y"]) for batch in prepared] == [8] * 4


def test_lightning(folder, tmp_path):
    lightning = pytest.importorskip("lightning", reason="lightning is not installed")
    passes: list[list[int]] = []

    class Data(lightning.LightningDataModule):
        def __init__(self):
            super().__init__()
            self.train, self.test = ptview.Dataset(folder).split(0.75, seed=42)

        def train_dataloader(self):
            return ptview.Loader(self.train, 8, shuffle=True, seed=42)

        def val_dataloader(self):
            return ptview.Loader(self.test, 8)

    class Model(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(12, 1)

        def on_train_epoch_start(self):
            passes.append([])

        def training_step(self, batch, _):
            passes[-1] += batch["x"][:, 0, 0].int().tolist()
            return self.layer(batch["x"].flatten(1)).square().mean()

        def validation_step(self, batch, _):
            assert len(batch["y"]) == 8

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=1e-6)

    quiet = {
        "accelerator": "cpu",
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "default_root_dir": tmp_path,
        "num_sanity_val_steps": 0,
    }
    trainer = lightning.Trainer(max_epochs=2, enable_checkpointing=False, **quiet)
    trainer.fit(Model(), datamodule=Data())
    assert len(passes) == 2 and passes[0] != passes[1]
    assert sorted(passes[0]) == sorted(passes[1]) and len(set(passes[0])) == 24

    # Gone on from a checkpoint that was made after four batches: with those that were left, of the second epoch.
    whole = [sample for samples in passes for sample in samples]
    keep = lightning.pytorch.callbacks.ModelCheckpoint(dirpath=tmp_path, every_n_train_steps=4, save_top_k=-1)
    trainer = lightning.Trainer(max_epochs=2, callbacks=[keep], **quiet)
    trainer.fit(Model(), datamodule=Data())
    (checkpoint,) = tmp_path.glob("*.ckpt")
    passes[:] = [[]]
    trainer = lightning.Trainer(max_epochs=2, enable_checkpointing=False, **quiet)
    trainer.fit(Model(), datamodule=Data(), ckpt_path=checkpoint)
    assert [sample for samples in passes for sample in samples] == whole[32:]
