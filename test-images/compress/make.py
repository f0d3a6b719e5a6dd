#!/usr/bin/env python3
"""Makes the fixtures of this folder with foreign compressors.

  plain.bin                    content: words, x86-like calls, noise, zeros (deterministic)
  xpress4k/8k/16k.bin, lzx.bin the same as wimlib stores it: chunk table and chunks, which is what WofCompressedData holds
  lznt1.bin                    the same as ntfs-3g stores it: for each 64 KiB unit a u32 length, then its bytes

Needs wimlib-imagex, mkntfs, ntfs-3g, fusermount, setfattr, and root or fuse rights.  Usage: make.py
"""
import os, random, re, struct, subprocess, tempfile

HERE = os.path.dirname(os.path.abspath(__file__))


def plain():
    r = random.Random(20)
    words = [''.join(r.choice('etaoinshrdlucmf') for _ in range(r.randint(1, 9))) for _ in range(400)]
    out = bytearray()
    while len(out) < 40000:
        out += (words[min(int(r.expovariate(0.02)), 399)] + ' ').encode()
    while len(out) < 80000:                                  # code: near calls, moves, immediates
        out += b'\x55\x8b\xec' + b'\xe8' + struct.pack('<i', r.choice([r.randint(-70000, 70000), 0x1000]))
        out += b'\x8b\x45' + bytes([r.randrange(0, 64, 4)]) + b'\x5d\xc3' + b'\xcc' * r.randint(0, 3)
    out += r.randbytes(9000)
    out += bytes(40000)
    out += b'ab' * 5000
    out += b'the end'
    return bytes(out)


def wim(folder, name, kind, chunk):
    path = os.path.join(folder, 'x.wim')
    subprocess.run(['wimlib-imagex', 'capture', os.path.join(folder, 'in'), path, '--compress=' + kind,
                    '--chunk-size=' + chunk, '--no-acls'], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    listing = subprocess.run(['wimlib-imagex', 'info', path, '--blobs'], check=True, capture_output=True, text=True).stdout
    os.rename(path, path + '.done')
    for blob in listing.split('\n\n'):
        facts = dict(re.findall(r'(\w[\w ]*?)\s+= (\w+)', blob))
        if int(facts.get('Uncompressed size', 0)) == os.path.getsize(os.path.join(HERE, 'plain.bin')):
            with open(path + '.done', 'rb') as file:
                file.seek(int(facts['Offset in WIM']))
                data = file.read(int(facts['Compressed size']))
            with open(os.path.join(HERE, name), 'wb') as file:
                file.write(data)


def lznt1(folder, data):
    image, mount = os.path.join(folder, 'v'), os.path.join(folder, 'm')
    os.mkdir(mount)
    with open(image, 'wb') as file:
        file.truncate(8 << 20)
    subprocess.run(['mkntfs', '-qFQ', '-c', '4096', image], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(['ntfs-3g', '-o', 'compression,permissions', image, mount], check=True)
    try:
        os.mkdir(mount + '/d')
        subprocess.run(['setfattr', '-n', 'system.ntfs_attrib', '-v', '0x00080000', mount + '/d'], check=True)
        with open(mount + '/d/file', 'wb') as file:
            file.write(data)
    finally:
        subprocess.run(['fusermount', '-u', mount], check=True)
    volume = open(image, 'rb').read()
    at = struct.unpack_from('<Q', volume, 48)[0] * 4096
    while True:                                              # the record whose $DATA is compressed
        record = bytearray(volume[at:at + 1024])
        for i in (1, 2):
            record[512 * i - 2:512 * i] = record[0x30 + 2 * i:0x32 + 2 * i]
        offset = struct.unpack_from('<H', record, 0x14)[0]
        while struct.unpack_from('<I', record, offset)[0] not in (0x80, 0xFFFFFFFF):
            offset += struct.unpack_from('<I', record, offset + 4)[0]
        if record[offset] == 0x80 and record[offset + 8] and struct.unpack_from('<H', record, offset + 12)[0] == 1:
            break
        at += 1024
    pairs = offset + struct.unpack_from('<H', record, offset + 0x20)[0]
    clusters, lcn = [], 0
    while record[pairs]:
        n, m = record[pairs] & 15, record[pairs] >> 4
        length = int.from_bytes(record[pairs + 1:pairs + 1 + n], 'little')
        lcn += int.from_bytes(record[pairs + 1 + n:pairs + 1 + n + m], 'little', signed=True)
        clusters += [lcn + i if m else None for i in range(length)]
        pairs += 1 + n + m
    out = bytearray()
    for unit in range(0, len(clusters), 16):
        part = b''.join(volume[c * 4096:c * 4096 + 4096] for c in clusters[unit:unit + 16] if c is not None)
        out += struct.pack('<I', len(part)) + part
    with open(os.path.join(HERE, 'lznt1.bin'), 'wb') as file:
        file.write(out)


def main():
    data = plain()
    with open(os.path.join(HERE, 'plain.bin'), 'wb') as file:
        file.write(data)
    with tempfile.TemporaryDirectory() as folder:
        os.mkdir(folder + '/in')
        with open(folder + '/in/f', 'wb') as file:
            file.write(data)
        for name, kind, chunk in (('xpress4k.bin', 'XPRESS', '4K'), ('xpress8k.bin', 'XPRESS', '8K'),
                                  ('xpress16k.bin', 'XPRESS', '16K'), ('lzx.bin', 'LZX', '32K')):
            wim(folder, name, kind, chunk)
        lznt1(folder, data)


main()
