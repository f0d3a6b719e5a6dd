"""sign_media.py TREE [--hash sha256|sha1] - sign a tree of stand-in drivers, in place.

Every driver file (.sys) gets a real embedded signature by an authority made here (a former signature is taken off
first), and every catalogue is replaced by one that lists the hashes of its folder's files.  For test media whose
signatures are noise.  The authority's certificate is left in TREE/cert/.  Needs openssl and osslsigncode.
"""
import argparse
import hashlib
import os
import struct
import subprocess
import tempfile

import drivers


def stripped(image):
    """The image without its certificates."""
    start = struct.unpack_from('<I', image, 0x3C)[0] + 24
    wide = struct.unpack_from('<H', image, start)[0] == 0x20B
    directory = start + (112 if wide else 96) + 4 * 8
    at, size = struct.unpack_from('<II', image, directory)
    image = bytearray(image[:at] if size else image)
    struct.pack_into('<II', image, directory, 0, 0)
    return bytes(image)


def sign_pe(authority, image, algorithm):
    source, target = os.path.join(authority.folder, 'in.sys'), os.path.join(authority.folder, 'out.sys')
    with open(source, 'wb') as file:
        file.write(stripped(image))
    if os.path.exists(target):
        os.remove(target)
    subprocess.run(['osslsigncode', 'sign', '-certs', authority.cert, '-key', authority.key, '-h', algorithm, '-in', source,
                    '-out', target], check=True, stdout=subprocess.DEVNULL)
    with open(target, 'rb') as file:
        return file.read()


def is_pe(data):
    return data[:2] == b'MZ'


def sign_folder(folder, names, authority, algorithm, cache):
    files = {}
    for name in names:
        path = os.path.join(folder, name)
        if name.lower().endswith(('.cat', '.pdb')):
            continue
        with open(path, 'rb') as file:
            data = file.read()
        if name.lower().endswith('.sys') and is_pe(data):
            key = hashlib.sha256(data).digest()
            if key not in cache:
                cache[key] = sign_pe(authority, data, algorithm)
            data = cache[key]
            with open(path, 'wb') as file:
                file.write(data)
        files[name] = data
    members = [drivers.member(name, drivers.authenticode(data, 'sha256') if is_pe(data) else hashlib.sha256(data).digest(),
                              is_pe(data)) for name, data in files.items()]
    list_ = None
    for name in names:
        if name.lower().endswith('.cat'):
            list_ = list_ or drivers.catalogue(members, authority)
            with open(os.path.join(folder, name), 'wb') as file:
                file.write(list_)


def main():
    parser = argparse.ArgumentParser(description='Sign a tree of stand-in drivers, in place.')
    parser.add_argument('tree')
    parser.add_argument('--hash', default='sha256', choices=['sha1', 'sha256'])
    options = parser.parse_args()
    cache = {}
    with tempfile.TemporaryDirectory() as work:
        authority = drivers.Authority(work)
        for folder, _, names in os.walk(options.tree):
            if any(name.lower().endswith('.cat') for name in names):
                sign_folder(folder, sorted(names), authority, options.hash, cache)
        os.makedirs(os.path.join(options.tree, 'cert'), exist_ok=True)
        with open(os.path.join(options.tree, 'cert', 'winject-test-publisher.cer'), 'wb') as file:
            file.write(authority.certificate)


if __name__ == '__main__':
    main()
