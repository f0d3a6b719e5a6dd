#!/usr/bin/env python3
"""bdeview.py VOLUME [FILE.BEK]: length and SHA-256 of the plain view, as libbde (PyPI libbde-python) reads it."""
import hashlib, sys
import pybde

volume = pybde.volume()
if len(sys.argv) > 2:
    volume.read_startup_key(sys.argv[2])
volume.open(sys.argv[1])
if volume.is_locked():
    volume.unlock()
left, digest = volume.get_size(), hashlib.sha256()
volume.seek_offset(0, 0)
while left > 0:
    data = volume.read_buffer(min(left, 1 << 20))
    digest.update(data)
    left -= len(data)
print(volume.get_size(), digest.hexdigest())
