"""Learning-rate policies: the learning rate and momentum of every step, without Lightning."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Literal

from customresnet.schedules.one_cycle import OneCycle
from customresnet.schedules.triangular import Triangular

Policy = OneCycle | Triangular
PolicyName = Literal["one_cycle", "triangular"]

POLICIES: dict[str, type[OneCycle] | type[Triangular]] = {"one_cycle": OneCycle, "triangular": Triangular}
"""Every policy by the name that `policy` takes."""


def policy_from_options(options: Mapping[str, Any]) -> Policy:
    """The policy that ImageClassifier's options describe.

    Options missing from an older checkpoint take their defaults; ``lr_max`` and ``lr_min`` are required.
    """
    kind = POLICIES[options.get("policy", "one_cycle")]
    own = {field.name: options[field.name] for field in fields(kind) if field.name in options}
    if own.get("momentum"):
        own["momentum"] = tuple(own["momentum"])
    return kind(**own)
