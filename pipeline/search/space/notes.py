"""What is worth knowing of a space before it is searched: the user's own code in it, and its conditions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.config import TrialConfig
from pipeline.search.space.definition import Space
from pipeline.tables import SAMPLERS, Table
from pipeline.user_code import read_code


def space_code_names(space: Space) -> list[str]:
    """Every `module:name` that a trial of the space can run."""
    tables = {name: field.metadata.get("choices") for name, field in TrialConfig.fields().items()}
    chosen = [
        (table, str(value))
        for name, table in tables.items()
        if isinstance(table, Table)
        for value in space.possible_values(name)
    ]
    return [name for table, name in chosen if table.is_user_code(name)]


def space_notes(space: Space, folders: Sequence[Path]) -> list[str]:
    """A line for each of the user's own modules, with its hash, and one for the parameters with `when`.

    folders: where the user's own modules may lie.

    Raises:
        ConfigError: one of them cannot be found.
    """
    names = space_code_names(space)
    notes = [
        f"{module}.py (sha256 {digest[:12]}): {', '.join(n for n in names if n.startswith(f'{module}:'))}"
        for module, digest in read_code(names, folders).hashes.items()
    ]
    conditional = [name for name in space.search if name not in space.unconditional]
    if conditional:
        samplers = ", ".join(name for name, row in SAMPLERS.items() if not row.conditions)
        notes.append(f"with `when`: {', '.join(conditional)}; the samplers {samplers} draw these at random")
    return notes
