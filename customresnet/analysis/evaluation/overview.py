"""The report's first section: recipe, accuracy, time, versions and hardware."""

from collections.abc import Callable
from typing import Any

from customresnet.analysis.evaluation.predictions import Predictions
from customresnet.analysis.page import Section
from customresnet.data.transforms.albumentations_backend import AlbumentationsBackend
from customresnet.data.transforms.policy import Augmentation
from customresnet.data.transforms.preprocessing import Preprocessing
from customresnet.models import network_name
from customresnet.runtime.errors import UserError
from customresnet.runtime.formatting import UNKNOWN, data_name, duration, learning_rate, percent
from customresnet.runtime.intervals import wilson
from customresnet.schedules import policy_from_options


def overview(
    predictions: Predictions, checkpoint: dict[str, Any], config: dict[str, Any], result: dict[str, Any]
) -> Section:
    """The recipe, the accuracy with its interval, and what the run recorded; its records may be empty."""
    correct, images = int(predictions.correct.sum()), len(predictions.labels)
    low, high = wilson(correct, images)
    text = [
        f"Test accuracy, computed for this report: {percent(correct / images)} ({correct:,} of {images:,} images; "
        f"Wilson's 95% interval: {percent(low)} to {percent(high)})."
    ]
    if predictions.is_unbalanced:
        text.append(
            f"The classes are unbalanced. Always predicting the largest class would reach "
            f"{percent(predictions.majority_accuracy)}; macro accuracy, the mean over the classes, is "
            f"{percent(predictions.macro_accuracy)}."
        )
    text += _compared(correct, images, checkpoint, result)
    facts = _recipe(checkpoint, config) | _measured(result)
    if "val/acc" in result and not config.get("data", {}).get("val_size"):
        facts["held out"] = "the validation images of the data set"
    numbers = {
        "correct": correct,
        "images": images,
        "accuracy": correct / images,
        "interval": [low, high],
        "macro_accuracy": predictions.macro_accuracy,
        "majority_accuracy": predictions.majority_accuracy,
        "facts": facts,
    }
    return Section("overview", "Overview", numbers=numbers, text=text, facts=facts)


def _compared(correct: int, images: int, checkpoint: dict[str, Any], result: dict[str, Any]) -> list[str]:
    """How the accuracy computed here compares with the recorded one."""
    if not result:
        return ["There is no result.json beside the checkpoint: the run is unfinished, or the checkpoint was copied."]
    if result.get("steps") not in (None, checkpoint["global_step"]):
        return [
            f"This is the network after step {checkpoint['global_step']:,}. The time and speed below are for the "
            f"whole run of {result['steps']:,} steps."
        ]
    recorded, total = result.get("test/correct"), result.get("test/images")
    if recorded is None or total is None or (recorded, total) == (correct, images):
        return []
    if total != images:
        return [f"The run recorded {recorded:,} of {total:,} images correct."]
    return [
        f"The run recorded {recorded:,} of {total:,}. Rounding depends on the machine, the precision and compilation, "
        "which changes the prediction for a few borderline images."
    ]


def _recipe(checkpoint: dict[str, Any], config: dict[str, Any]) -> dict[str, str]:
    options, prep = checkpoint["hyper_parameters"], checkpoint["preprocessing"]
    data = data_name(prep["source"], config.get("data", {}).get("root"))
    facts = {
        "network": _network(options),
        "LRMIN to LRMAX": f"{_rate(options['lr_min'])} to {_rate(options['lr_max'])}",
        "policy": str(policy_from_options(options)),
        "momentum": _momentum(options),
        "optimizer": f"{options.get('optimizer', 'adam')}, weight decay {options['weight_decay']:g}",
        "data": f"{data}, {prep['image_size']}x{prep['image_size']}, {len(prep['classes'])} classes",
        "test images": str(Preprocessing.from_checkpoint(checkpoint).transforms()),
        "trained for": f"{checkpoint['epoch'] + 1} epochs, {checkpoint['global_step']:,} steps",
    }
    if "data" in config:
        used = config["data"]
        constants = prep["mean"], prep["std"], prep["image_size"]
        part, held_out = used.get("train_size"), used.get("val_size")
        facts |= {
            "batch size": str(used.get("batch_size", UNKNOWN)),
            "training images": _augmentation(used.get("augment", {}), constants),
            "trained on": f"{part:,} training images" if part else "all training images",
            "held out": f"{held_out} images" if held_out else "none; the test images are evaluated after each epoch",
        }
    return facts


def _network(options: dict[str, Any]) -> str:
    facts = [network_name(options["network"])]
    if options.get("width") is not None:
        facts += [f"width {options['width']}", f"dropout {options['dropout']:g}"]
    if isinstance(options["network"], dict):
        facts += [f"{name} {value}" for name, value in options["network"].get("init_args", {}).items()]
    return ", ".join(facts)


def _momentum(options: dict[str, Any]) -> str:
    name = "momentum" if options.get("optimizer") == "sgd" else "beta1"
    limits = options["momentum"]
    return f"{name} {limits[1]:g} to {limits[0]:g} and back" if limits else f"{name} constant"


def _augmentation(options: dict[str, Any], constants: tuple[Any, ...]) -> str:
    try:
        return str(AlbumentationsBackend(Augmentation.from_config(options), *constants))
    except (UserError, TypeError, ValueError, AttributeError):  # from another version, or edited by hand
        return UNKNOWN


def _measured(result: dict[str, Any]) -> dict[str, str]:
    """What a run recorded; a damaged record lacks some of it."""
    words: dict[str, Callable[[Any], str]] = {
        "parameters": lambda value: f"{value:,}",
        "seconds": lambda value: f"{duration(value)}, including evaluations",
        "images_per_second": lambda value: f"{value:,} images/s, including evaluations",
        "seed": str,
        "precision": str,
        "device": str,
        "versions": lambda value: ", ".join(f"{name} {version}" for name, version in value.items()),
    }
    names = {"seconds": "time", "images_per_second": "speed"}
    return {names.get(name, name): say(result[name]) for name, say in words.items() if result.get(name) is not None}


def _rate(value: float | None) -> str:
    return "unknown" if value is None else learning_rate(value)
