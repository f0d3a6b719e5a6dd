"""Writes a registry hive (regf 1.5) from a tree, in one pass: nothing to heal, no free cells but the bins' tails.

A key is a dict: str -> dict is a subkey, str -> (type, bytes) a value.  Same tree, same bytes.
"""
import struct

NIL = 0xFFFFFFFF
CLOCK = 0x01D5000000000000          # 2019-05-04
MAX_LEAF = 1013


def sz(text, kind=1):
    return kind, (text + '\0').encode('utf-16le')


def expand_sz(text):
    return sz(text, 2)


def multi_sz(*parts):
    return 7, (''.join(p + '\0' for p in parts) + '\0').encode('utf-16le')


def dword(number):
    return 4, struct.pack('<I', number)


def binary(data):
    return 3, data


def descriptor():
    """Owner Administrators, group SYSTEM; full control for both, read for Users; inherited by subkeys."""
    administrators = struct.pack('<BB6sII', 1, 2, b'\0\0\0\0\0\5', 32, 544)
    users = struct.pack('<BB6sII', 1, 2, b'\0\0\0\0\0\5', 32, 545)
    system = struct.pack('<BB6sI', 1, 1, b'\0\0\0\0\0\5', 18)
    aces = b''
    for sid, mask in ((administrators, 0xF003F), (system, 0xF003F), (users, 0x20019)):
        aces += struct.pack('<BBHI', 0, 2, 8 + len(sid), mask) + sid
    acl = struct.pack('<BBHHH', 2, 0, 8 + len(aces), 3, 0) + aces
    owner = 20 + len(acl)
    return struct.pack('<BBHIIII', 1, 0, 0x8004, owner, owner + len(administrators), 0, 20) + acl + administrators + system


class Builder:
    def __init__(self):
        self.data = bytearray()
        self.keys = 0

    def bin(self, need):
        size = (need + 32 + 4095) // 4096 * 4096
        self.close()
        start = len(self.data)
        first = CLOCK if start == 0 else 0
        self.data += struct.pack('<4sIIQQI', b'hbin', start, size, 0, first, 0)
        self.end = start + size

    def close(self):
        """The rest of the present bin becomes one free cell."""
        if self.data and len(self.data) < self.end:
            rest = self.end - len(self.data)
            self.data += struct.pack('<i', rest) + bytes(rest - 4)

    def cell(self, content):
        size = (4 + len(content) + 7) // 8 * 8
        if not self.data or len(self.data) + size > self.end:
            self.bin(size)
        at = len(self.data)
        self.data += struct.pack('<i', -size) + content + bytes(size - 4 - len(content))
        return at

    def patch(self, at, offset, form, *values):
        struct.pack_into(form, self.data, at + 4 + offset, *values)

    def value(self, name, kind, data):
        raw = name.encode('latin-1')
        if len(data) == 0:
            length, field = 0x80000000, 0
        elif len(data) <= 4:
            length, field = 0x80000000 | len(data), struct.unpack('<I', data.ljust(4, b'\0'))[0]
        else:
            assert len(data) <= 16344, 'this small writer knows no big data'
            length, field = len(data), self.cell(data)
        return self.cell(struct.pack('<2sHIIIHH', b'vk', len(raw), length, field, kind, 1 if raw else 0, 0) + raw)

    def key(self, name, tree, parent, security):
        raw = name.encode('latin-1')
        flags = 0x2C if parent is None else 0x20
        at = self.cell(struct.pack('<2sHQ15IHH', b'nk', flags, CLOCK, 0, parent or 0, 0, 0, NIL, NIL, 0, NIL,
                                   NIL if security is None else security, NIL, 0, 0, 0, 0, 0, len(raw), 0) + raw)
        self.keys += 1
        if security is None:
            security = self.cell(struct.pack('<2sHIIII', b'sk', 0, 0, 0, 0, len(self.sd)) + self.sd)
            self.patch(security, 4, '<II', security, security)
            self.patch(at, 44, '<I', security)
            self.security = security
        values = [(n, v) for n, v in tree.items() if not isinstance(v, dict)]
        children = sorted(((n, v) for n, v in tree.items() if isinstance(v, dict)), key=lambda item: item[0].upper())
        if values:
            offsets = [self.value(n, *v) for n, v in values]
            self.patch(at, 36, '<II', len(offsets), self.cell(struct.pack('<%dI' % len(offsets), *offsets)))
            self.patch(at, 60, '<II', max(2 * len(n) for n, _ in values), max(len(v[1]) for _, v in values))
        if children:
            assert len(children) <= MAX_LEAF
            entries = b''
            for n, v in children:
                hash_ = 0
                for unit in n.upper().encode('utf-16le')[::2]:
                    hash_ = (hash_ * 37 + unit) & 0xFFFFFFFF
                entries += struct.pack('<II', self.key(n, v, at, security), hash_)
            self.patch(at, 20, '<I', len(children))
            self.patch(at, 28, '<I', self.cell(struct.pack('<2sH', b'lh', len(children)) + entries))
            self.patch(at, 52, '<H', max(2 * len(n) for n, _ in children))
        return at

    def build(self, root_name, tree):
        self.sd = descriptor()
        root = self.key(root_name, tree, None, None)
        self.patch(self.security, 12, '<I', self.keys)
        self.close()
        base = bytearray(4096)
        struct.pack_into('<4sIIQIIIIIII', base, 0, b'regf', 1, 1, CLOCK, 1, 5, 0, 1, root, len(self.data), 1)
        total = 0
        for (word,) in struct.iter_unpack('<I', base[:508]):
            total ^= word
        struct.pack_into('<I', base, 508, {0xFFFFFFFF: 0xFFFFFFFE, 0: 1}.get(total, total))
        return bytes(base + self.data)


def build(root_name, tree):
    return Builder().build(root_name, tree)
