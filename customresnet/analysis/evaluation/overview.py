"""What was trained, how, where, and how well: the report's first view."""

from datetime import timedelta
from typing import Any

from customresnet.analysis.evaluation.predictions import Predictions
from customresnet.analysis.page import Section
from customresnet.data.transforms.albumentations_backend import AlbumentationsBackend
from customresnet.data.transforms.policy import Augmentation
from customresnet.data.transforms.preprocessing import Preprocessing
from customresnet.runtime.intervals import wilson


def overview(
    outputs: Predictions, checkpoint: dict[str, Any], config: dict[str, Any] | None, result: dict[str, Any] | None
) -> Section:
    """The recipe, the learning rates, the accuracy with its interval, time, versions and hardware.

    Args:
        outputs: The network's answers to the test images.
        checkpoint: The checkpoint.
        config: The run's config.yaml; None if there is none.
        result: The run's result.json; None if there is none.
    """
    correct, images = int(outputs.correct.sum()), len(outputs.labels)
    low, high = wilson(correct, images)
    text = [
        f"Test accuracy {correct / images:.2%} ({correct:,} of {images:,} images; "
        f"95 % interval by Wilson {low:.2%} to {high:.2%}), computed for this page."
    ]
    text += _compared(correct, images, checkpoint, result)
    facts = _recipe(checkpoint, config) | _measured(result)
    numbers = {
        "correct": correct,
        "images": images,
        "accuracy": correct / images,
        "interval": [low, high],
        "facts": facts,
    }
    return Section("overview", "Overview", numbers=numbers, text=text, facts=facts)


def _compared(correct: int, images: int, checkpoint: dict[str, Any], result: dict[str, Any] | None) -> list[str]:
    """How this page's accuracy compares with the run's own."""
    if not result:
        return ["The run's own result.json is not beside the checkpoint: it is unfinished, or was copied alone."]
    if checkpoint["global_step"] != result["steps"]:
        return [
            f"This is the network after step {checkpoint['global_step']:,}; time and speed below are those of the "
            f"whole run of {result['steps']:,} steps."
        ]
    recorded, total = result.get("test/correct"), result.get("test/images")
    if recorded is None or (recorded, total) == (correct, images):
        return []
    if total != images:
        return [f"The run itself counted {recorded:,} of {total:,} images."]
    return [
        f"The run itself recorded {recorded:,} of {total:,}: rounding differs between machines, precisions and "
        "compiled or plain networks, and a few images lie on the border."
    ]


def _policy(options: dict[str, Any]) -> str:
    """The policy of the learning rate in words."""
    momentum = options["momentum"]
    name = "momentum" if options.get("optimizer") == "sgd" else "beta1"
    cycled = f"{name} {momentum[1]:g} to {momentum[0]:g} and back" if momentum else f"{name} constant"
    if options.get("policy", "one_cycle") == "triangular":
        gamma = f" {options['cycle_gamma']:g}" if options["cycle_mode"] == "exp_range" else ""
        half = options["half_cycle"]
        length = f"half-cycle of {half:g} epochs" if half else "half-cycle of 1/12 of the run"
        return f"{options['cycle_mode']}{gamma}, {length}, {cycled}"
    peak = f"peak at epoch {options['peak_epoch']:g}" if options["peak_epoch"] else "peak at 5/24 of the run"
    divisor = options.get("final_div_factor", 1.0)
    end = "" if divisor == 1 else f", ends at LRMIN/{divisor:g}"
    return f"One Cycle, {options['anneal']}, {peak}{end}, {cycled}"


def _recipe(checkpoint: dict[str, Any], config: dict[str, Any] | None) -> dict[str, str]:
    options, prep = checkpoint["hyper_parameters"], checkpoint["preprocessing"]
    facts = {
        "network": f"{options['network']}, width {options['width']}, dropout {options['dropout']:g}",
        "LRMIN to LRMAX": f"{_rate(options['lr_min'])} to {_rate(options['lr_max'])}",
        "policy": _policy(options),
        "optimizer": f"{options.get('optimizer', 'adam')}, weight decay {options['weight_decay']:g}",
        "data": f"{prep['source']}, {prep['image_size']}x{prep['image_size']}, {len(prep['classes'])} classes",
        "test images": str(Preprocessing.from_checkpoint(checkpoint).engine()),
        "trained for": f"{checkpoint['epoch'] + 1} epochs, {checkpoint['global_step']:,} steps",
    }
    if config:
        data = config["data"]
        constants = prep["mean"], prep["std"], prep["image_size"]
        facts |= {
            "batch size": str(data["batch_size"]),
            "training images": str(AlbumentationsBackend(Augmentation.of(data["augment"]), *constants)),
            "trained on": f"{data['train_size']:,} of its images"
            if data.get("train_size")
            else "all its training images",
            "held out": f"{data['val_size']} images" if data["val_size"] else "nothing: watched on the test images",
        }
    return facts


def _measured(result: dict[str, Any] | None) -> dict[str, str]:
    if not result:
        return {}
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    return {
        "parameters": f"{result['parameters']:,}",
        "time": f"{timedelta(seconds=round(result['seconds']))}, evaluations included",
        "speed": f"{result['images_per_second']:,} images/s, evaluations included",
        "seed": str(result["seed"]),
        "precision": result["precision"],
        "device": result["device"],
        "versions": versions,
    }


def _rate(value: float | None) -> str:
    return "not known" if value is None else f"{value:.3g}"
