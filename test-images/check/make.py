#!/usr/bin/env python3
"""Makes volume.raw.xz, a small NTFS volume with one of everything, and tiny.raw.xz, one with very little, for the
checker's tests.

mkntfs formats it and ntfs-3g fills it: a directory of several index blocks, streams, an attribute list with a
fragmented stream, hard links, a DOS name, a reparse point, an object id, compressed and sparse files, several security
descriptors.  Needs mkntfs, ntfs-3g, fusermount, setfattr, xz, and fuse rights.  Usage: make.py
"""
import os, subprocess, tempfile

HERE = os.path.dirname(os.path.abspath(__file__))


def attribute(path, name, value):
    subprocess.run(['setfattr', '-h', '-n', name, '-v', value, path], check=True)


def fill(m):
    os.mkdir(m + '/big')
    for i in range(420):
        with open(f'{m}/big/file with a rather long name number {i * 7919 % 420:04d}.txt', 'w') as f:
            f.write('x' * (i % 900))
    os.makedirs(m + '/Windows/System32/config')
    for name, size in (('SYSTEM', 30000), ('SOFTWARE', 70000)):
        with open(m + '/Windows/System32/config/' + name, 'wb') as f:
            f.write(bytes(i * 31 & 255 for i in range(size)))
    for i in range(120):                                     # every second file goes: free space in pieces
        with open(f'{m}/piece{i:03d}', 'wb') as f:
            f.write(b'p' * 4096)
    for i in range(0, 120, 2):
        os.remove(f'{m}/piece{i:03d}')
    room = os.statvfs(m)
    with open(m + '/filler', 'wb') as f:                     # the only other room
        f.write(b'f' * ((room.f_bavail - 110) * room.f_frsize))
    with open(m + '/streams', 'wb') as f:
        f.write(b'main')
    for i in range(30):
        attribute(m + '/streams', f'user.stream{i:02d}', f'content of stream {i} ' * 3)
    with open(m + '/fragments', 'wb') as f:
        f.write(b'q' * (70 * 4096))
    for i in range(18):
        attribute(m + '/fragments', f'user.s{i:02d}', f'content of stream {i} ' * 3)
    os.remove(m + '/filler')
    os.link(m + '/streams', m + '/Windows/second link')
    attribute(m + '/Windows/System32', 'system.ntfs_dos_name', 'SYSTEM32')
    with open(m + '/a long name.text', 'w') as f:
        f.write('short too')
    attribute(m + '/a long name.text', 'system.ntfs_dos_name', 'ALONGN~1.TEX')
    os.symlink('streams', m + '/link')
    with open(m + '/with id', 'w') as f:
        f.write('object')
    attribute(m + '/with id', 'system.ntfs_object_id', '0x00112233445566778899aabbccddeeff')
    os.mkdir(m + '/packed')
    attribute(m + '/packed', 'system.ntfs_attrib', '0x00080000')
    with open(m + '/packed/file', 'wb') as f:
        f.write(b'packed ' * 30000)
    with open(m + '/sparse', 'wb') as f:
        f.truncate(1 << 20)
        f.seek(1 << 19)
        f.write(b's' * 5000)
    for i, mode in enumerate((0o600, 0o644, 0o755, 0o400)):
        with open(f'{m}/mode{i}', 'w') as f:
            f.write('mode')
        os.chmod(f'{m}/mode{i}', mode)


def fill_tiny(m):
    os.makedirs(m + '/dir/sub')
    for i in range(40):
        with open(f'{m}/dir/a name that is long enough {i:02d}', 'w') as f:
            f.write('y' * (i * 40))
    with open(m + '/streams', 'wb') as f:
        f.write(b'z' * 5000)
    for i in range(12):
        attribute(m + '/streams', f'user.stream{i:02d}', f'content of stream {i} ' * 3)
    os.symlink('streams', m + '/link')


def make(name, size, fill):
    with tempfile.TemporaryDirectory() as folder:
        image, mount = folder + '/v', folder + '/m'
        os.mkdir(mount)
        with open(image, 'wb') as f:
            f.truncate(size)
        subprocess.run(['mkntfs', '-qFQ', '-c', '4096', '-s', '512', '-p', '0', '-H', '0', '-S', '0', '-L', 'check', image],
                       check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        subprocess.run(['ntfs-3g', '-o', 'permissions,compression,streams_interface=xattr', image, mount], check=True)
        try:
            fill(mount)
        finally:
            subprocess.run(['fusermount', '-u', mount], check=True)
        with open(image, 'rb') as f, open(os.path.join(HERE, name), 'wb') as o:
            subprocess.run(['xz', '-9e', '-c'], stdin=f, stdout=o, check=True)


make('volume.raw.xz', 10 << 20, fill)
make('tiny.raw.xz', 2 << 20, fill_tiny)
