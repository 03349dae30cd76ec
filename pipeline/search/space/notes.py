"""What is worth knowing of a space before it is searched: the user's own code in it, and its conditions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.config import TrialConfig
from pipeline.search.space.definition import Space
from pipeline.search.space.rules import ImageFacts
from pipeline.tables import LOSSES, NETWORKS, SAMPLERS, Table
from pipeline.user_code import read_code


def space_code_names(space: Space) -> list[str]:
    """Every `module:name` that a trial of the space can run."""
    names: list[str] = []
    for name, field in TrialConfig.fields().items():
        table = field.metadata.get("choices")
        if isinstance(table, Table):
            names += filter(table.is_user_code, space.possible_values(name))
    return names


def describe_code(names: Sequence[str], hashes: Mapping[str, str]) -> list[str]:
    """`mine (sha256 0f3a...): mine:build, mine:loss` for each module. hashes: SHA-256 by module."""
    return [
        f"{module} (sha256 {digest[:12]}): {', '.join(n for n in names if n.startswith(f'{module}:'))}"
        for module, digest in hashes.items()
    ]


def space_notes(space: Space, folders: Sequence[Path]) -> list[str]:
    """A line for each of the user's own modules, with its hash, and one for the parameters with `when`.

    Of a space with rules also what it becomes for images of several kinds.

    folders: where the user's own modules may lie.

    Raises:
        ConfigError: one of them cannot be found.
        SpaceError: the rules contradict each other for such images.
    """
    names = space_code_names(space)
    notes = describe_code(names, read_code(names, folders).hashes)
    if not space.rules:
        return notes + _resolved_notes(space)
    resolved = {facts: space.on_images(facts) for facts in _EXAMPLES}
    notes += [f"{_describe(facts)}: {outline(resolved[facts])}" for facts in _EXAMPLES if facts.labelled]
    return [*notes, *dict.fromkeys(note for each in resolved.values() for note in _resolved_notes(each))]


_EXAMPLES = [
    ImageFacts(
        size=size,
        channels=3,
        images=images,
        classes=classes,
        smallest_class=images // classes if classes else 0,
        device=device,
    )
    for device in ("cpu", "gpu")
    for size in (32, 64, 128)
    for images in (1_000, 50_000)
    for classes in (0, 10)
]
"""Images of several kinds, for which the rules of a space are tried."""


def _describe(facts: ImageFacts) -> str:
    return f"{facts.device}, {facts.images:,} images of {facts.size} px, {facts.classes} classes"


def outline(space: Space) -> str:
    """What a space searches, in short: `40 kimg, widths 8-32, batch 16-64, augmentation searched`."""
    config = space.config({})
    parts = [f"{config.kimg:,} kimg"]
    for label, names in (("widths", ("width_g", "width_d")), ("batch", ("batch_size",))):
        found = [value for name in names for value in _extremes(space, name)]
        low, high = min(found), max(found)
        parts.append(f"{label} {low:g}-{high:g}" if low < high else f"{label} {low:g}")
    architectures = space.possible_values("architecture")
    parts += [" or ".join(architectures)] if len(architectures) > 1 else []
    parts += ["conditional"] if config.conditional else []
    return ", ".join([*parts, *augmentation(space)])


def augmentation(space: Space) -> list[str]:
    """`augmentation searched`, or `augmentation ada`; nothing where there is none."""
    if "augment" in space.search:
        return ["augmentation searched"]
    augment = space.config({}).augment
    return [f"augmentation {augment}"] if augment != "none" else []


def _extremes(space: Space, name: str) -> Sequence[float]:
    d = space.search.get(name)
    if d is None:
        return (getattr(space.config({}), name),)
    return d.choices or (d.low, d.high)


def _resolved_notes(space: Space) -> list[str]:
    """Notes on a space that has no rules, or no longer."""
    notes = []
    conditional = [name for name in space.search if name not in space.unconditional]
    if conditional:
        samplers = ", ".join(name for name, row in SAMPLERS.items() if not row.conditions)
        notes.append(f"with `when`: {', '.join(conditional)}; the samplers {samplers} draw these at random")
    return [*notes, *_unregularised_losses(space), *_norms_without_effect(space)]


def _unregularised_losses(space: Space) -> list[str]:
    """A note for each loss that needs a Lipschitz D and can be drawn without what keeps it so."""
    notes = []
    for loss in space.possible_values("loss"):
        penalties, norms = (set(_values(space, name, loss=loss)) for name in ("penalty", "norm_d"))
        if loss in LOSSES and LOSSES[loss].needs_penalty and "none" in penalties and norms != {"spectral"}:
            notes.append(f"loss {loss} needs a penalty or norm_d = spectral, and can be drawn without")
    return notes


def _norms_without_effect(space: Space) -> list[str]:
    """A note for each architecture with choices of a norm that change nothing in it."""
    notes = []
    searched = [name for name in ("norm_g", "norm_d") if name in space.search]
    for architecture in space.possible_values("architecture"):
        for name in searched if architecture in NETWORKS else ():
            effective = getattr(NETWORKS[architecture], name)
            possible = _values(space, name, architecture=architecture, unset=())
            idle = [value for value in possible if value not in effective]
            if idle:
                notes.append(f"{name} {', '.join(idle)} has no effect in {architecture}")
    return notes


def _values(space: Space, name: str, unset: tuple[str, ...] | None = None, **drawn: str) -> tuple[str, ...]:
    """What a hyper-parameter can be where others are `drawn`.

    unset: what it is where its `when` does not hold; None = its default.
    """
    if name not in space.search:
        return space.possible_values(name)
    known, distribution = {**space.fixed, **drawn}, space.search[name]
    holds = [known[n] in values if n in known else None for n, values in distribution.when.items()]
    chosen = () if False in holds else distribution.choices
    if unset is None:
        unset = (getattr(TrialConfig(), name),)
    return chosen if all(holds) else (*chosen, *unset)
