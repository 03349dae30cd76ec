"""What another user sees of a folder that it may not look into."""

from __future__ import annotations

import os
from collections.abc import Callable


def as_another_user(ask: Callable[[], object]) -> str:
    """The text of what `ask` returns, or of the error that it raises, in a process of another user.

    Whoever is not root stays the user that it is: modes of folders hold for it already.
    """
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        try:
            if os.getuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            text = str(ask())
        except BaseException as error:
            text = repr(error)
        os.write(writer, text.encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with open(reader, encoding="utf-8") as answer:
        return answer.read()
