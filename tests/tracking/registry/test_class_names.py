"""Classes by number and by name, and the texts that mean none or several."""

from __future__ import annotations

import pytest

from pipeline.errors import RegistryError
from pipeline.tracking.registry.class_names import describe_class, find_class, split_classes

PETS = ("ant", "cat", "dog")
BY_TEXT = ("0", "1", "10", "11", "2")
"""Classes of an old model, whose numbers are not their names."""


@pytest.mark.parametrize(
    ("text", "names", "number"),
    [
        ("cat", PETS, 1),
        (" cat ", PETS, 1),
        ("1", PETS, 1),
        ("+1", PETS, 1),
        ("number:1", PETS, 1),
        ("1", BY_TEXT, 1),  # both readings agree
        ("10", BY_TEXT, 2),  # no class has the number 10
        ("3", BY_TEXT, 3),  # no class has the name 3
        ("number:2", BY_TEXT, 2),
        ("-1", ("-1", "1"), 0),
        ("1990", ("1990", "1991"), 0),
        ("02", ("00", "01", "02"), 2),
        ("cafe\u0301", ("tea", "caf\u00e9"), 1),  # as another file system writes it
        ("tench, Tinca tinca", ("tench, Tinca tinca", "goldfish"), 0),
        ("2", ("a", "b", " 2"), 2),
    ],
)
def test_a_class_by_number_or_name(text: str, names: tuple[str, ...], number: int) -> None:
    assert find_class(text, names, len(names)) == number


@pytest.mark.parametrize(("text", "number"), [("2", 2), ("number:7", 7), ("-1", -1), ("99", 99)])
def test_without_names_a_number_is_what_it_says(text: str, number: int) -> None:
    """A number that no class has is refused by `LoadedGenerator.check`."""
    assert find_class(text, (), 10) == number


@pytest.mark.parametrize(
    ("text", "names", "line"),
    [
        (
            "2",
            BY_TEXT,
            'label 2 means several classes (class 2: "10" and class 4: "2"); write number:2 or number:4',
        ),
        (
            "cat",
            ("cat", "dog", "cat"),
            'label cat means several classes (class 0: "cat" and class 2: "cat"); write number:0 or number:2',
        ),
        ("kat", PETS, "no class is called 'kat' (a label is a number in [0, 2], or a name)"),
        ("kat", PETS, 'did you mean "cat" or "ant"?'),
        ("DOG", PETS, 'did you mean "dog"?'),
        ("1.5", PETS, 'its classes are "ant", "cat", "dog"'),
        ("", PETS, "no class is called ''"),
        ("zzz", tuple(f"class-{i}" for i in range(1000)), '"class-7" ... (1000 in all)'),
        ("cat", (), "write a number: its classes have no names"),
        ("9" * 5000, PETS, "no class is called"),
    ],
)
def test_a_text_that_means_no_class_or_several_is_one_line(
    text: str, names: tuple[str, ...], line: str
) -> None:
    with pytest.raises(RegistryError) as caught:
        find_class(text, names, len(names) or 3)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_drawn_is_described() -> None:
    assert describe_class(2, ("zero", "one", "ten")) == 'class 2: "ten"'
    assert describe_class(2, ()) == "class 2"
    assert describe_class(0, ("a\x1b[2J\n",)) == 'class 0: "a\\x1b[2J\\n"'


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("0,cat", ("0", "cat")),
        (" 3, 8 ,,0,", ("3", "8", "0")),
        ('"tench, Tinca tinca", goldfish', ("tench, Tinca tinca", "goldfish")),
        ("", ()),
    ],
)
def test_several_classes_stand_between_commas(text: str, parts: tuple[str, ...]) -> None:
    assert split_classes(text) == parts
