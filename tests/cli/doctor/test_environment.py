"""Checks of the environment: nothing secret is shown, and another `pipeline` is seen."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.cli.doctor.environment import check_pipeline, check_proxies


def test_a_proxy_is_shown_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://me:hush@proxy:3128")
    text = check_proxies().text
    assert "http_proxy=http://***@proxy:3128" in text
    assert "hush" not in text


def test_another_pipeline_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "is found first" not in check_pipeline().text
    (tmp_path / "pipeline.py").touch()
    monkeypatch.chdir(tmp_path)
    assert f"{tmp_path}/pipeline.py is found first" in check_pipeline().text
