"""Object stores as the place where a sweep lives: s3://BUCKET/PREFIX, gs://..., what pyarrow can reach.

Owns: addresses, keys put and got whole (`store`); a folder here that is made like its store and back
(`mirror`), with the one file that grows for days in sealed segments (`segments`); a thread that carries
changes (`courier`); where a trial works on its node (`place`).
Refuses: knowing what the files mean; credentials, which come from the environment alone.

Object stores neither append nor rename. A sweep's process and every worker therefore work in a folder of
their own, below the cache. What has changed there is put in whole objects. The store is the truth: a folder
that is pulled becomes like it.
"""

from __future__ import annotations

from pipeline.stores.address import checked, is_url, join, of_study, parent, scratch
from pipeline.stores.courier import Courier
from pipeline.stores.mirror import Mirror, needless
from pipeline.stores.place import Workplace, workplace
from pipeline.stores.store import Store
from pipeline.stores.visit import fetched, sweep_toml, visited, watched

__all__ = [
    "Courier",
    "Mirror",
    "Store",
    "Workplace",
    "checked",
    "fetched",
    "is_url",
    "join",
    "needless",
    "of_study",
    "parent",
    "scratch",
    "sweep_toml",
    "visited",
    "watched",
    "workplace",
]
