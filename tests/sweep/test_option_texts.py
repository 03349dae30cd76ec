"""Texts of options are parsed, and wrong ones are named with what to write instead."""

from __future__ import annotations

import pytest

from pipeline.errors import ConfigError
from pipeline.sweep import option_texts


@pytest.mark.parametrize(
    ("text", "seconds"), [("", 0), ("90s", 90), ("10m", 600), ("8h", 28800), ("2d", 172800), ("5", 5)]
)
def test_durations(text: str, seconds: float) -> None:
    assert option_texts.parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["soon", "-3m", "0m", "1w"])
def test_wrong_durations(text: str) -> None:
    with pytest.raises(ConfigError, match=f"{text} .*10m"):
        option_texts.parse_duration(text)


def test_settings_are_read_as_toml() -> None:
    assert option_texts.parse_settings(["lr_g=1e-4", "loss=hinge", "conditional=true", 'norm_d="none"']) == {
        "lr_g": 1e-4,
        "loss": "hinge",
        "conditional": True,
        "norm_d": "none",
    }


@pytest.mark.parametrize("text", ["lr_g", "=3"])
def test_wrong_settings(text: str) -> None:
    with pytest.raises(ConfigError, match=f"--set {text} "):
        option_texts.parse_settings([text])


def test_gpus_per_trial() -> None:
    assert option_texts.parse_gpus_per_trial("auto") == -1
    assert option_texts.parse_gpus_per_trial("0.25") == 0.25


@pytest.mark.parametrize("text", ["half", "-1", "nan", "2"])
def test_wrong_gpus_per_trial(text: str) -> None:
    with pytest.raises(ConfigError, match=f"--gpus-per-trial {text}"):
        option_texts.parse_gpus_per_trial(text)
