#!/usr/bin/env python3
"""sectors.py: encrypts sectors as BitLocker does, for a comparison.

Reads lines METHOD KEY SECTOR OFFSET DATA (method as a number, key and data in hexadecimal digits, sector size and volume
offset in bytes), and prints the ciphertext of DATA, whole sectors from OFFSET on, in hexadecimal digits.
AES comes from PyPI `cryptography` (OpenSSL); the diffuser is written from its definition, word by word."""
import struct, sys
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

def ecb(key, block):
    e = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    return e.update(block) + e.finalize()

def rol(x, n):
    return ((x << n) | (x >> (32 - n))) & 0xFFFFFFFF

def diffuse(data):
    d = list(struct.unpack('<%dI' % (len(data) // 4), data)); n = len(d)
    for _ in range(5):
        for i in range(n - 1, -1, -1):
            d[i] = (d[i] - (d[(i - 2) % n] ^ rol(d[(i - 5) % n], (9, 0, 13, 0)[i % 4]))) & 0xFFFFFFFF
    for _ in range(3):
        for i in range(n - 1, -1, -1):
            d[i] = (d[i] - (d[(i + 2) % n] ^ rol(d[(i + 5) % n], (0, 10, 0, 25)[i % 4]))) & 0xFFFFFFFF
    return struct.pack('<%dI' % n, *d)

def encrypt(method, key, size, offset, data):
    if method >= 0x8004:
        mode = modes.XTS((offset // size).to_bytes(16, 'little'))
        e = Cipher(algorithms.AES(key), mode).encryptor()
        return e.update(data) + e.finalize()
    length = 16 if method in (0x8000, 0x8002) else 32
    if method < 0x8002:
        tweak = key[32:32 + length]
        number = offset.to_bytes(16, 'little')
        pad = ecb(tweak, number) + ecb(tweak, number[:15] + b'\x80')
        data = diffuse(bytes(a ^ b for a, b in zip(data, pad * (size // 32))))
    vector = ecb(key[:length], offset.to_bytes(16, 'little'))
    e = Cipher(algorithms.AES(key[:length]), modes.CBC(vector)).encryptor()
    return e.update(data) + e.finalize()

for line in sys.stdin:
    method, key, size, offset, data = line.split()
    method, size, offset = int(method, 0), int(size), int(offset)
    key, data = bytes.fromhex(key), bytes.fromhex(data)
    out = b''.join(encrypt(method, key, size, offset + i, data[i:i + size]) for i in range(0, len(data), size))
    print(out.hex())
