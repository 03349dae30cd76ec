"""What was understood of a data set: kept beside the prepared images, told by `gansweep data` and `run`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

from pipeline.data.findings import Findings


@dataclass(frozen=True, kw_only=True)
class Understood:
    """Everything about a data set that its pixels and labels do not say.

    value_range: lowest and highest value of the prepared images, 0..255. classes_from: why these are the
    classes. left_out: files that are not used, by reason; examples: names of some, by reason. exact, near:
    images that are exact or near copies of an earlier one. moved: groups of copies that would have lain on
    both sides of the split; across: those that still do. pairs: names of some copies. blank: images of one
    colour. distinct: images that differ visibly from one another. notes: guesses, each with how to say
    otherwise.
    """

    value_range: tuple[int, int] = (0, 255)
    classes_from: str = ""
    left_out: Mapping[str, int] = field(default_factory=dict)
    examples: Mapping[str, list[str]] = field(default_factory=dict)
    exact: int = 0
    near: int = 0
    moved: int = 0
    across: int = 0
    pairs: tuple[tuple[str, str], ...] = ()
    blank: int = 0
    distinct: int = 0
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, findings: Findings, **more: Any) -> Self:
        """The findings of a source, and what the pixels say."""
        left_out = {reason: entry.count for reason, entry in findings.left_out.items()}
        examples = {reason: entry.examples for reason, entry in findings.left_out.items() if entry.examples}
        return cls(
            classes_from=findings.classes_from,
            left_out=left_out,
            examples=examples,
            notes=tuple(findings.notes),
            **more,
        )

    def with_left_out(self, findings: Findings) -> Self:
        """The same, and what `findings` count as left out."""
        more = type(self).of(findings)
        left_out = Counter(more.left_out) + Counter(self.left_out)
        return replace(self, left_out=dict(left_out), examples={**more.examples, **self.examples})

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`, also after JSON; TypeError for other keys."""
        pairs = tuple((str(a), str(b)) for a, b in values.get("pairs", ()))
        low, high = values["value_range"]
        return cls(**{**values, "value_range": (low, high), "pairs": pairs, "notes": tuple(values["notes"])})

    def describe_left_out(self) -> str:
        """`12 unreadable (a.png, b.png, ...), 3 not an image`; "" where nothing is left out."""
        return ", ".join(self._left_out_rows())

    def _left_out_rows(self) -> Iterator[str]:
        for reason, count in sorted(self.left_out.items(), key=lambda row: -row[1]):
            names = self.examples.get(reason, [])
            more = ", ..." if count > len(names) else ""
            yield f"{count:,} {reason}" + (f" ({', '.join(names)}{more})" if names else "")
