"""Registration, and who becomes candidate or champion."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from registry_store import Store

from pipeline.errors import RegistryError
from pipeline.tracking.registry import promote
from pipeline.tracking.registry.metadata import ModelMetadata
from pipeline.tracking.registry.promote import decide_promotion, set_alias
from pipeline.tracking.tracking_uri import open_store

pytestmark = pytest.mark.mlflow


INTERVAL = {"evaluator": "e", "fid_low": "9.0", "fid_high": "11.0"}  # half width 1


@pytest.mark.parametrize(
    ("facts", "champion", "alias"),
    [
        ({"fid": 9.0, "evaluator": "e"}, None, "champion"),
        ({"fid": 9.0, "evaluator": "e"}, {"fid": "10.0", "evaluator": "e"}, "champion"),
        ({"fid": 10.0, "evaluator": "e"}, {"fid": "10.0", "evaluator": "e"}, "candidate"),
        ({"fid": 11.0, "evaluator": "e"}, {"fid": "10.0", "evaluator": "e"}, "candidate"),
        ({"fid": 9.0, "evaluator": "other"}, {"fid": "10.0", "evaluator": "e"}, "candidate"),
        ({"fid": 9.0}, {"fid": "10.0"}, "candidate"),
        ({"fid": 9.0, "evaluator": "e"}, {"evaluator": "e"}, "champion"),
        ({"fid": 9.0, "evaluator": "e"}, {"fid": "NaN", "evaluator": "e"}, "champion"),
        ({"fid": None, "evaluator": "e"}, None, None),
        ({"fid": math.nan, "evaluator": "e"}, {"fid": "10.0", "evaluator": "e"}, None),
        ({**INTERVAL, "fid": 8.5}, {"fid": "10.0", "evaluator": "e"}, "champion"),
        ({**INTERVAL, "fid": 9.5}, {"fid": "10.0", "evaluator": "e"}, "candidate"),
        ({"fid": 9.5, "evaluator": "e"}, {**INTERVAL, "fid": "10.0"}, "candidate"),
        ({"fid": 8.5, "evaluator": "e"}, {**INTERVAL, "fid": "10.0"}, "champion"),
        ({"fid": 1.0, "evaluator": "e", "withhold": ["copies"]}, None, None),
    ],
)
def test_the_alias_that_facts_earn(
    facts: dict[str, Any], champion: dict[str, str] | None, alias: str | None
) -> None:
    old = None if champion is None else ModelMetadata.from_json(champion)
    assert decide_promotion(ModelMetadata.from_json(facts), old)[0] == alias


def test_a_better_version_becomes_champion_over_http(store: Store) -> None:
    assert (store.second.version, store.second.alias) == (2, "champion")
    assert "by more than the interval" in store.second.reason
    assert store.aliases("gan")["champion"] == 2


@pytest.mark.parametrize(
    ("name", "facts", "alias", "reason", "holds"),
    [
        ("better", {"fid": 30.0}, "champion", "beats the champion's 40", {"champion": 2}),
        ("near", {"fid": 39.0, "fid_low": 37.0, "fid_high": 41.0}, "candidate", "within the interval",
         {"champion": 1, "candidate": 2}),
        ("worse", {"fid": 41.0}, "candidate", "does not beat", {"champion": 1, "candidate": 2}),
        ("foreign", {"fid": 1.0, "evaluator": "other"}, "candidate", "another evaluator",
         {"champion": 1, "candidate": 2}),
        ("copier", {"fid": 1.0, "withhold": ["copies training images", "collapsed"]}, None,
         "withheld: copies training images; collapsed", {"champion": 1}),
        ("unmeasured", {"fid": None}, None, "its fid is missing", {"champion": 1}),
    ],
)  # fmt: skip
def test_aliases_after_registration(
    store: Store, name: str, facts: dict[str, Any], alias: str | None, reason: str, holds: dict[str, int]
) -> None:
    assert store.add(0, 40.0, name=name).alias == "champion"
    done = store.add(1, name=name, facts=facts)
    assert (done.version, done.alias) == (2, alias)
    assert reason in done.reason
    assert store.aliases(name) == holds


def test_promote_bounds_the_alias(store: Store) -> None:
    never = store.add(0, 40.0, name="bounded", promote="never")
    assert (never.alias, store.aliases("bounded")) == (None, {})
    candidate = store.add(1, 30.0, name="bounded", promote="candidate")
    assert (candidate.alias, store.aliases("bounded")) == ("candidate", {"candidate": 2})
    assert "candidate at most" in candidate.reason
    later = store.add(0, 40.0, name="bounded")  # it was not decided before
    assert (later.version, later.alias) == (1, "champion")
    with pytest.raises(RegistryError, match="--promote always is unknown.*never, candidate or champion"):
        store.add(0, 40.0, name="bounded", promote="always")


def test_the_same_source_makes_no_second_version(store: Store) -> None:
    first = store.add(0, 40.0, name="twice")
    again = store.add(0, 40.0, name="twice")
    assert (again.version, again.alias, again.uri) == (1, "champion", first.uri)
    assert "registered before" in again.reason
    assert store.add(0, 40.0, name="twice", facts={"fingerprint": "other data"}).version == 2


def test_a_champion_stays_champion_where_a_kill_kept_the_reason_out(store: Store) -> None:
    store.add(0, 40.0, name="killed")
    store.client().delete_model_version_tag("killed", "1", "gansweep.alias_reason")
    assert store.add(0, 40.0, name="killed").alias == "champion"
    assert store.aliases("killed") == {"champion": 1}


def test_a_rolled_back_alias_stays_so_when_the_sweep_registers_again(store: Store) -> None:
    store.add(0, 40.0, name="rolled")
    store.add(1, 30.0, name="rolled")
    done = set_alias("models:/rolled/1", "champion", tracking_uri=store.uri)
    assert (done.version, done.alias) == (1, "champion")
    assert store.aliases("rolled") == {"champion": 1}
    assert store.add(1, 30.0, name="rolled").alias is None  # registering again does not undo it
    assert store.aliases("rolled") == {"champion": 1}


def test_a_withheld_version_gets_an_alias_that_is_named(store: Store) -> None:
    done = store.add(2, 1.0, name="named", facts={"withhold": ["collapsed"]}, alias="tried")
    assert (done.alias, store.aliases("named")) == ("tried", {"tried": 1})
    assert np.array_equal(store.load("models:/named@tried").sample(1)[0], store.load(done.uri).sample(1)[0])


@pytest.mark.parametrize("better_begins", [True, False])
def test_of_two_that_register_at_the_same_moment_the_better_is_champion(
    empty_store: Callable[[Path], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, better_begins: bool
) -> None:
    def slowly(new: ModelMetadata, champion: ModelMetadata | None) -> tuple[str | None, str]:
        decided = decide_promotion(new, champion)
        time.sleep(0.3 if new.fid == 40.0 else 0.1)
        return decided

    monkeypatch.setattr(promote, "decide_promotion", slowly)
    client = open_store(empty_store(tmp_path))
    client.create_registered_model("gan")
    threads = []
    for fid in (30.0, 40.0) if better_begins else (40.0, 30.0):
        facts = {"fid": fid, "evaluator": "e"}
        tags = {key: str(value) for key, value in facts.items()}
        version = client.create_model_version("gan", source=f"file:{tmp_path}/{fid:g}", tags=tags)
        given = (client, version, ModelMetadata.from_json(facts), "auto", "champion", "registered")
        threads.append(threading.Thread(target=promote._give_alias, args=given))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert client.get_model_version_by_alias("gan", "champion").tags["fid"] == "30.0"


def test_a_name_that_only_logged_models_cannot_have(store: Store) -> None:
    done = store.add(0, 40.0, name="gän v1.2")
    assert (done.uri, done.alias) == ("models:/gän v1.2/1", "champion")
    assert store.load("models:/gän v1.2@champion").sample(1)[0].shape == (1, 8, 8, 2)


def test_the_name_of_a_prompt_is_refused(store: Store) -> None:
    store.client().register_prompt("greeting", template="hello")
    with pytest.raises(RegistryError, match="greeting is the name of a prompt.*choose another with --name"):
        store.add(0, 40.0, name="greeting")
