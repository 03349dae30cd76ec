"""Names that MLflow would refuse at the end of a search are refused before it."""

from __future__ import annotations

import pytest
from mlflow.exceptions import MlflowException
from mlflow.utils.validation import (
    _validate_model_alias_name,
    _validate_model_alias_name_reserved,
    _validate_model_name,
)

from pipeline.errors import RegistryError
from pipeline.tracking.registry.names import check_alias, check_registration


@pytest.mark.parametrize("name", ["gan", "team gan_2.1", "gän", "7", "x" * 200])
def test_names_that_mlflow_takes(name: str) -> None:
    check_registration(name, "champion")
    _validate_model_name(name)


@pytest.mark.parametrize(
    "name", ["", " ", "team/gan", "a:b", ".", "..", "/a", "a/../b", "it's", "a@b", "x" * 201, "a\n"]
)
def test_an_impossible_name_is_refused(name: str) -> None:
    with pytest.raises(RegistryError, match="cannot be a model's name.*choose another with --register"):
        check_registration(name, "champion", option="--register")


@pytest.mark.parametrize("promote", ["", "champoin", "Champion", "always"])
def test_an_unknown_promotion_is_refused(promote: str) -> None:
    with pytest.raises(RegistryError, match="is unknown .it must be never, candidate or champion"):
        check_registration("gan", promote)


@pytest.mark.parametrize("alias", ["champion", "candidate", "tried-2", "version", "v1a"])
def test_aliases_that_mlflow_takes(alias: str) -> None:
    check_alias(alias)


@pytest.mark.parametrize("alias", ["", "a b", "a@b", "a.b", "x" * 256, "latest", "LATEST", "v1", "V23"])
def test_an_alias_that_mlflow_refuses_is_refused(alias: str) -> None:
    with pytest.raises(RegistryError, match="--alias .* (cannot be an alias|is reserved)"):
        check_alias(alias)
    with pytest.raises(MlflowException):
        _mlflow_checks(alias)


def _mlflow_checks(alias: str) -> None:
    _validate_model_alias_name(alias)
    _validate_model_alias_name_reserved(alias)
