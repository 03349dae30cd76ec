"""Networks of the package timm, without weights. It is imported when they are made, as that takes seconds."""

from __future__ import annotations

from typing import Any

from torch import nn

from pipeline.errors import EvaluatorError, first_line


def create_network(name: str, extractor: str, install: str, **options: Any) -> nn.Module:
    """timm's network `name` with random weights.

    extractor: what needs it. install: the command that installs timm. options: of timm's `create_model`.

    Raises:
        EvaluatorError: timm is not installed, or cannot be imported: it imports torchvision, which must fit
            the torch.
    """
    rule = f"the {extractor} extractor uses its network"
    try:
        import timm
    except Exception as error:
        if isinstance(error, ImportError) and error.name == "timm":
            raise EvaluatorError("{seen} is not installed", rule=rule, seen="timm", fix=install) from error
        problem, fix = "timm cannot be imported ({seen})", "install the torchvision that fits this torch"
        raise EvaluatorError(problem, rule=rule, seen=first_line(error), fix=fix) from error
    network: nn.Module = timm.create_model(name, pretrained=False, **options)
    return network
