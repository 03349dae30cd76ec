"""Which trials a study has, read without writing anything."""

from __future__ import annotations

from pathlib import Path

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from pipeline.errors import SweepError, first_line
from pipeline.search.study_database import STUDIES
from pipeline.storage.database import can_read, reading


def begun_trials(storage: str | Path, name: str) -> frozenset[int] | None:
    """The numbers of the trials that a study has begun; None of a kind of database that cannot be read.

    storage: a journal file, or a database URL; where it has no such study, there are no trials.

    Raises:
        SweepError: it cannot be read.
    """
    if isinstance(storage, Path):
        return _of_journal(storage, name) if storage.is_file() else frozenset()
    if not can_read(storage):
        return None
    with reading(storage, STUDIES) as reader:
        studies = {row[0] for row in reader.rows("studies", "study_id", "study_name") if row[1] == name}
        rows = reader.rows("trials", "study_id", "number", "state")
        waiting = TrialState.WAITING.name
        return frozenset(number for study, number, state in rows if study in studies and state != waiting)


def _of_journal(path: Path, name: str) -> frozenset[int]:
    try:
        storage = JournalStorage(JournalFileBackend(str(path)))
        study = storage.get_study_id_from_name(name)
        trials = storage.get_all_trials(study, deepcopy=False)
    except KeyError:
        return frozenset()
    except (OSError, ValueError, optuna.exceptions.OptunaError) as error:
        raise SweepError(
            "the study cannot be read",
            rule="study.journal must be as gansweep wrote it",
            seen=f"{path}: {first_line(error)}",
            fix="restore it from a copy, or begin a new sweep with another --name",
        ) from error
    return frozenset(trial.number for trial in trials if trial.state != TrialState.WAITING)
