#!/usr/bin/env python3
"""dump.py READER HIVE... - everything that a foreign reader sees in hives.

READER: hivex (Debian's python3-hivex), pyreg (python-registry), dissect (dissect.regf), regipy.
Writes HIVE.READER: one line for each key and value, with names as hex of UTF-16.
"""
import hashlib
import sys


def code(name):
    return name.encode('utf-16-le', 'surrogatepass').hex()


def value_line(path, name, kind, data):
    return 'V %s %s %x %d %s' % (path, code(name), kind & 0xFFFFFFFF, len(data), hashlib.sha1(data).hexdigest())


def walk_hivex(path):
    import hivex
    hive = hivex.Hivex(path)
    stack = [('', hive.root())]
    while stack:
        place, node = stack.pop()
        yield 'K %s' % place
        for value in hive.node_values(node):
            kind, data = hive.value_value(value)
            yield value_line(place, hive.value_key(value), kind, data)
        stack.extend((place + '/' + code(hive.node_name(child)), child) for child in hive.node_children(node))


def walk_pyreg(path):
    from Registry import Registry
    stack = [('', Registry.Registry(path).root())]
    while stack:
        place, key = stack.pop()
        yield 'K %s' % place
        for value in key.values():
            record = value._vkrecord
            name = record.name() if record.has_name() else ''
            length = record.raw_data_length() & 0x7FFFFFFF  # it gives resident data as four bytes
            record.data_type = lambda: 3  # it cuts numbers to their size otherwise
            data = record.raw_data()[:length] if length else b''
            yield value_line(place, name, record.unpack_dword(0xC), data)
        stack.extend((place + '/' + code(child.name()), child) for child in key.subkeys())


def walk_dissect(path):
    from dissect.regf import regf
    # it takes 8-bit names for UTF-8 when they happen to be valid
    regf.decode_name = lambda raw, size, narrow: raw[:size].decode('latin-1' if narrow else 'utf-16-le')
    stack = [('', regf.RegistryHive(open(path, 'rb')).root())]
    while stack:
        place, key = stack.pop()
        yield 'K %s' % place
        for value in key.values():
            name = value.name if value.cell.NameLength else ''
            data = value.data if value.size else b''
            yield value_line(place, name, value.type, data)
        stack.extend((place + '/' + code(child.name), child) for child in key.subkeys())


def walk_regipy(path):
    import logging
    from construct import EnumIntegerString
    from regipy import registry
    logging.disable(logging.CRITICAL)

    def decode(raw, narrow):  # it takes 8-bit names for ASCII
        return raw.decode('latin-1' if narrow else 'utf-16-le')

    class AsBinary:
        """It gives back bytes as they are for one type only, so every value gets that one; what it was stays here."""
        layout = getattr(registry.VALUE_KEY, 'layout', registry.VALUE_KEY)  # not the one of the hive before

        def parse_stream(self, stream):
            vk = self.layout.parse_stream(stream)
            self.name, self.kind = decode(vk.name, vk.flags.VALUE_COMP_NAME), int(vk.data_type)
            vk.data_type = EnumIntegerString.new(3, 'REG_BINARY')
            return vk

    last = registry.VALUE_KEY = AsBinary()
    stack = [('', registry.RegistryHive(path).root)]
    while stack:
        place, key = stack.pop()
        yield 'K %s' % place
        for value in key.iter_values(trim_values=False):
            yield value_line(place, last.name, last.kind, value.value)
        for child in list(key.iter_subkeys()):
            name = decode(child.header.key_name_string, child.header.flags.KEY_COMP_NAME)
            stack.append((place + '/' + code(name), child))


def main():
    readers = {'hivex': walk_hivex, 'pyreg': walk_pyreg, 'dissect': walk_dissect, 'regipy': walk_regipy}
    reader = readers[sys.argv[1]]
    for hive in sys.argv[2:]:
        with open('%s.%s' % (hive, sys.argv[1]), 'w') as out:
            out.writelines(sorted(line + '\n' for line in reader(hive)))


if __name__ == '__main__':
    main()
