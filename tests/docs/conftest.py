"""The tests of the documents import tools/ from the checkout."""

from __future__ import annotations

import sys

from markdown_pages import ROOT

sys.path.insert(0, str(ROOT))
