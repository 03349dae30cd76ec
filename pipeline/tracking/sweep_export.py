"""How a sweep is exported to MLflow: the name of its experiment, and the tags and parameters of its run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from pipeline.config import SweepConfig, SweepPaths
from pipeline.tracking.event_log import EventLog
from pipeline.tracking.mlflow_exporter import MlflowExporter
from pipeline.tracking.provenance import provenance
from pipeline.tracking.tracking_uri import default_artifacts


def start_exporter(
    paths: SweepPaths,
    config: SweepConfig,
    event_log: EventLog,
    uri: str,
    facts: Mapping[str, Mapping[str, object]],
    space_hash: str,
) -> MlflowExporter:
    """Start to export the sweep's event log to the tracking store at `uri`.

    facts: the tables of sweep.toml that describe images, evaluator and code.
    """
    described = {f"{table}.{key}": str(value) for table, rows in facts.items() for key, value in rows.items()}
    return MlflowExporter(
        paths.root,
        event_log,
        uri,
        experiment=f"gansweep/{config.name}",
        artifact_location=default_artifacts(uri),
        parent_tags={**provenance(), **described, "space.hash": space_hash},
        parent_params=dataclasses.asdict(config),
    )
