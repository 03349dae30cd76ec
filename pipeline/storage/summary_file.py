"""The schema of summary.json, and reading a summary.json that was checked against it.

The schema lists the keys that commands, the live view and the report read; further keys are allowed.
`pipeline.reporting.summary` writes the file.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline.errors import SweepError

_NUMBER = {"type": "number", "minimum": -1e15, "maximum": 1e15}
_NUMBER_OR_NULL = {"anyOf": [_NUMBER, {"type": "null"}]}
_COUNT = {"type": "integer", "minimum": 0, "maximum": 10**9}
_TEXT = {"type": "string"}
_PARAMS = {"type": "object", "additionalProperties": {"type": ["number", "string", "boolean", "null"]}}


def _object(required: str, **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required.split()}


def _list(item: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": item}


_BEST_FIELDS = {"trial": _COUNT, "balance": _NUMBER_OR_NULL, "kimg": _NUMBER_OR_NULL, "params": _PARAMS}
_BEST = _object("trial fid balance kimg params", **_BEST_FIELDS, fid=_NUMBER)
_LEADER = _object(
    "trial state fid balance kimg params",
    **_BEST_FIELDS,
    **dict.fromkeys(("fid", "auc", "last_kimg", "stability"), _NUMBER_OR_NULL),
    **dict.fromkeys(("state", "verdict", "cause"), _TEXT),
)
_RUNNING = _object(
    "trial fid balance last_kimg verdict",
    trial=_COUNT,
    fid=_NUMBER_OR_NULL,
    balance=_NUMBER_OR_NULL,
    verdict=_TEXT,
)
_FINALIST = _object(
    "best measurement",
    best=_object("trial fid search_fid", **_BEST_FIELDS, **dict.fromkeys(("fid", "search_fid"), _NUMBER),
                 **dict.fromkeys(("fresh_fid", "gap", "fid_mean", "fid_std"), _NUMBER_OR_NULL)),
    measurement=_object("fid_low fid_high n verdicts", fid_low=_NUMBER, fid_high=_NUMBER, n=_COUNT,
                        verdicts=_list(_TEXT)),
    runs=_list(_object("fid", fid=_NUMBER_OR_NULL, verdicts=_list(_TEXT))),
)  # fmt: skip
_REGISTERED = _object("name version alias uri", name=_TEXT, uri=_TEXT, reason=_TEXT)
_STATES = ("complete", "pruned", "failed", "running")
SCHEMA = _object(
    "name state wall_seconds kimg_total trials best leaderboard",
    name=_TEXT,
    state={"enum": ["running", "finished", "interrupted", "failed"]},
    reason=_TEXT,
    **dict.fromkeys(
        ("wall_seconds", "kimg_total", "time_budget_sec", "images_per_sec", "disk_bytes"), _NUMBER
    ),
    trials_asked=_COUNT,
    trials=_object(" ".join(_STATES), **dict.fromkeys(_STATES, _COUNT)),
    best={"anyOf": [_BEST, {"type": "null"}]},
    leaderboard=_list(_LEADER),
    running=_list(_RUNNING),
    failures=_list(_object("trial kind text", trial=_COUNT, kind=_TEXT, text=_TEXT, kimg=_COUNT)),
    finalists=_list(_FINALIST),
    evaluator=_object("", extractor=_TEXT, hash=_TEXT, samples=_COUNT),
    registered={"anyOf": [_REGISTERED, {"type": "null"}]},
)


def read_summary(path: Path) -> dict[str, Any]:
    """The content of the summary.json at `path`; `{}` if there is none.

    Raises:
        SweepError: it cannot be read, or does not match the schema.
    """
    from jsonschema import Draft202012Validator

    try:
        content = json.loads(path.read_bytes(), parse_constant=_refuse_constant)
        error = next(Draft202012Validator(SCHEMA).iter_errors(content), None)
        wrong = "" if error is None else f"{'.'.join(map(str, error.absolute_path))}: {error.message}"
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, RecursionError) as problem:
        wrong = str(problem)
    if wrong:
        raise SweepError(
            "summary.json cannot be used",
            rule="it must be as gansweep wrote it",
            seen=wrong,
            fix="delete it: the next resume writes it again",
        )
    return dict(content)


def _refuse_constant(text: str) -> float:
    """For `NaN` and `Infinity`, which Python's parser accepts though JSON has no such numbers."""
    raise ValueError(f"{text} is no number of JSON")


def no_sweep_dir(root: Path) -> SweepError:
    """The error for a folder without summary.json."""
    return SweepError(
        "{seen} is not a sweep's folder",
        rule="a sweep's folder holds summary.json",
        seen=str(root),
        fix="pass DIR/NAME of `gansweep run`",
    )
