"""The optimizer's learning rate after the last step."""

import pytest
import torch
from pytorch_lightning import seed_everything

from customresnet import CIFAR10DataModule, ImageClassifier, Trainer


@pytest.mark.parametrize("policy", ["one_cycle", "triangular"])
def test_after_the_last_step_the_learning_rate_is_that_of_the_last_step(tmp_path, policy):
    seed_everything(0)
    model = ImageClassifier(width=4, lr_max=3e-3, lr_min=1e-4, policy=policy)
    data = CIFAR10DataModule(source="digits", batch_size=128, train_size=768, engine="batch")
    trainer = Trainer(max_epochs=1, logger=False, enable_progress_bar=False, default_root_dir=str(tmp_path))
    trainer.fit(model, datamodule=data)
    assert trainer.global_step == 6
    group = trainer.optimizers[0].param_groups[0]
    schedule = model.policy().scheduler(model.new_optimizer(), 6, 6)
    for _ in range(5):
        schedule.optimizer.step()
        schedule.step()
    assert group["lr"] == pytest.approx(schedule.optimizer.param_groups[0]["lr"])
    assert group["betas"] == pytest.approx(schedule.optimizer.param_groups[0]["betas"])
    if policy == "one_cycle":
        assert group["lr"] == pytest.approx(1e-4)
    saved = torch.load(next(tmp_path.rglob("last.ckpt")), weights_only=True)["optimizer_states"][0]
    assert saved["param_groups"][0]["lr"] == pytest.approx(group["lr"])
