"""Checking a file against a JSON schema: the first mistake as one line, with the nearest valid name.

Beside the keywords of JSON schema, a schema may use `typos`, which refuses an unknown key only if it is
similar to a known one; `is`, a text that says what a value has to be; and `since`, the first version that
knows a key.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jsonschema

from pipeline.errors import ConfigError, nearest

Yaml = Mapping[str, Any]
"""A mapping as YAML or JSON holds it: its values are plain, and of any type."""

_KINDS = {
    "string": ("a text", 'put it in quotes: "{}"'),
    "integer": ("a whole number", "correct it"),
    "number": ("a number", "correct it"),
    "boolean": ("true or false", "write true or false"),
    "array": ("a list", "begin each of its lines with a dash"),
    "object": ("a mapping of keys", "indent its keys below it"),
}
_CLOSE = 0.75


def check_schema(content: Any, schema: Yaml, owner: str, name: str = "") -> None:
    """Check `content` against a schema.

    owner: whose schema it is, for the message. name: of the content as a whole.

    Raises:
        ConfigError: the first mistake.
    """
    found = _errors(content, schema, typos=_nearly_known)
    if found:
        raise _config_error(min(found, key=_position), content, owner, name)


def newer_keys(content: Any, schema: Yaml) -> list[str]:
    """The keys in a valid `content` that the schema marks with `since`."""
    found = _errors(content, schema, since=lambda *_: [jsonschema.ValidationError("newer")])
    return sorted({str(error.absolute_path[-1]) for error in found})


def _errors(content: Any, schema: Yaml, **keywords: Callable[..., Iterable[Any]]) -> list[Any]:
    """The errors of `content`, with checks for keywords that JSON schema does not have."""
    validator = jsonschema.validators.extend(jsonschema.validators.validator_for(schema), keywords)
    return list(validator(schema).iter_errors(content))


def _position(error: Any) -> tuple[list[str], bool]:
    """Sort key: from the top of the file down; a misspelt key before the missing one that it should be."""
    return [str(part) for part in error.absolute_path], error.validator in ("required", "oneOf")


def _nearly_known(validator: Any, wanted: bool, content: Any, schema: Yaml) -> Iterator[Any]:
    known = schema["properties"]
    lower = [name.lower() for name in known]
    for key in content if wanted and isinstance(content, dict) else ():
        if key not in known and difflib.get_close_matches(str(key).lower(), lower, n=1, cutoff=_CLOSE):
            yield jsonschema.ValidationError(str(key), validator="typos")


def _config_error(error: Any, content: Any, owner: str, name: str) -> ConfigError:
    """A jsonschema error, whose text quotes half the file, as one line."""
    where = _where(content, error.absolute_path, name) or "the top level"
    seen, wanted = error.instance, error.validator_value
    if error.validator in ("additionalProperties", "typos"):
        known = error.schema.get("properties", {})
        key = error.message if error.validator == "typos" else min(map(str, set(seen) - set(known)))
        return ConfigError(
            f"{where} has the key {{seen}}, which {owner} does not know", seen=key, fix=nearest(key, known)
        )
    if error.validator == "required":
        missing = next(key for key in wanted if key not in seen)
        return ConfigError(f"{where} lacks the key {missing}", fix=f"add {missing}:")
    if error.validator == "oneOf":
        keys = [choice["required"][0] for choice in wanted]
        count, fix = ("both", "keep one") if keys[0] in seen else ("neither", "add one")
        rule = "it must have exactly one of them"
        return ConfigError(f"{where} has {count} of {' and '.join(keys)}", rule=rule, fix=fix)
    if error.validator == "minItems":
        fix = "add one, or leave it out"
        return ConfigError(f"{where} has too few items", rule=f"at least {wanted} item", seen=seen, fix=fix)
    problem, fix = f"does not fit {owner}'s schema", "correct it"
    rule = f"the schema wants {error.validator} {wanted}"
    if "is" in error.schema:
        problem, rule = "is wrong", f"it must be {error.schema['is']}"
    elif error.validator == "type" and str(wanted) in _KINDS:
        kind, fix = _KINDS[wanted]
        problem, rule = f"is not {kind}", ""
        fix = "share a GPU with --gpus-per-trial" if where.endswith(".GPU") else fix.format(seen)
    elif error.validator == "enum":
        names = [str(choice) for choice in wanted]
        problem, rule, fix = "is unknown", f"it must be one of {', '.join(names)}", nearest(str(seen), names)
    elif error.validator == "minimum":
        whole = "whole number" if error.schema.get("type") == "integer" else "number"
        problem, rule = "is out of range", f"it must be a {whole} of at least {wanted}"
    return ConfigError(f"{where} = {{seen}} {problem}", rule=rule, seen=seen, fix=fix)


def check_counts(where: str, counts: Mapping[str, int]) -> None:
    """Refuse numbers of machines that do not ascend from 0. counts: by key, in their order.

    Raises:
        ConfigError: they do not.
    """
    ascending = [0, *counts.values()]
    if ascending != sorted(ascending):
        raise ConfigError(
            f"{where} has impossible counts",
            rule=" <= ".join(["0", *counts]),
            seen=", ".join(f"{key} {count}" for key, count in counts.items()),
            fix="correct them",
        )


def _where(content: Any, path: Any, name: str) -> str:
    """The dotted path to a value; items of a list by their names, where they have one."""
    parts = [name] if name else []
    for part in path:
        content = content[part]
        title = content.get("groupName") or content.get("name") if isinstance(content, dict) else None
        parts.append(title if isinstance(part, int) and isinstance(title, str) else str(part))
    return ".".join(parts)
