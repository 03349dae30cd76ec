"""Files and folders: atomic writes, object stores, the lock of a sweep.

Responsible for how bytes are written, copied and locked; not for what trials or sweeps mean by them.
"""
