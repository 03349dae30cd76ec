"""A file against a JSON schema: the first mistake, as one line with the nearest name.

Owns: the words for what a schema wants. Refuses: what no schema can say.

Beside the keywords of JSON schema: `typos`, which refuses a key only where it is nearly a known one, and
`is`, which tells in words what a value has to be.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.errors import ConfigError, nearest

_KINDS = {
    "string": ("a text", 'put it in quotes: "{}"'),
    "integer": ("a whole number", "correct it"),
    "number": ("a number", "correct it"),
    "boolean": ("true or false", "write true or false"),
    "array": ("a list", "begin each of its lines with a dash"),
    "object": ("a mapping of keys", "indent its keys below it"),
}
_CLOSE = 0.75


def refuse_mistakes(content: Any, schema: Mapping[str, Any], whose: str, name: str = "") -> None:
    """Raise ConfigError for the first mistake in `content`; `whose` schema it is, `name` of the whole."""
    import jsonschema

    validator = jsonschema.validators.extend(
        jsonschema.validators.validator_for(schema), {"typos": _nearly_known}
    )
    found = list(validator(schema).iter_errors(content))
    if found:
        raise _told(min(found, key=_place), content, whose, name)


def _place(error: Any) -> tuple[list[str], bool]:
    """From the top of the file down; a misspelt key before the one that it should have been."""
    return [str(part) for part in error.absolute_path], error.validator == "required"


def _nearly_known(validator: Any, wanted: bool, content: Any, schema: Mapping[str, Any]) -> Iterator[Any]:
    import jsonschema

    known = schema["properties"]
    small = [name.lower() for name in known]
    for key in content if wanted and isinstance(content, dict) else ():
        if key not in known and difflib.get_close_matches(str(key).lower(), small, n=1, cutoff=_CLOSE):
            yield jsonschema.ValidationError(str(key), validator="typos")


def _told(error: Any, content: Any, whose: str, name: str) -> ConfigError:
    """A jsonschema error, which quotes half the file, as our one line."""
    where = _where(content, error.absolute_path, name) or "the top level"
    seen, wanted = error.instance, error.validator_value
    if error.validator in ("additionalProperties", "typos"):
        known = error.schema.get("properties", {})
        key = error.message if error.validator == "typos" else min(map(str, set(seen) - set(known)))
        return ConfigError(f"{where} has only keys that {whose} knows", seen=key, fix=nearest(key, known))
    if error.validator == "required":
        missing = next(key for key in wanted if key not in seen)
        return ConfigError(f"{where} has the key {missing}", seen="none", fix=f"add {missing}:")
    if "is" in error.schema:
        return ConfigError(f"{where} is {error.schema['is']}", seen=seen, fix="correct it")
    if error.validator == "type" and wanted in _KINDS:
        kind, fix = _KINDS[wanted]
        fix = "share a GPU with --gpus-per-trial" if where.endswith(".GPU") else fix.format(seen)
        return ConfigError(f"{where} is {kind}", seen=seen, fix=fix)
    if error.validator == "enum":
        names = [str(choice) for choice in wanted]
        return ConfigError(f"{where} is one of {', '.join(names)}", seen=seen, fix=nearest(str(seen), names))
    if error.validator == "minimum":
        whole = "whole number" if error.schema.get("type") == "integer" else "number"
        return ConfigError(f"{where} is a {whole} from {wanted}", seen=seen, fix="correct it")
    if error.validator == "minItems":
        return ConfigError(f"{where} has at least {wanted} item", seen=seen, fix="add one, or leave it out")
    rule = f"{error.validator} {wanted}"
    return ConfigError(f"{where} fits {whose}'s schema", seen=seen, fix=f"the schema wants {rule}")


def _where(content: Any, path: Any, name: str) -> str:
    """The way to a value, in words: items of a list by their names, where they have one."""
    parts = [name] if name else []
    for part in path:
        content = content[part]
        own = content.get("groupName") or content.get("name") if isinstance(content, dict) else None
        parts.append(str(own) if isinstance(part, int) and isinstance(own, str) else str(part))
    return ".".join(parts)
