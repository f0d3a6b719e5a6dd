"""differences.py OFFSET BEFORE AFTER - how a guest's content differs between two raw images, by foreign readers.

Reads the NTFS volume at byte OFFSET of both images with dissect.ntfs: every file and folder with its SHA-256, and every
key and value of the hives SYSTEM, SOFTWARE and DRIVERS with dissect.regf. Prints JSON: a list of lines, each "- ITEM" for
what only BEFORE has, "+ ITEM" for what only AFTER has, and "~ ITEM" for what has another content. An item is a path, a
folder with a slash at its end, "HIVE\\key" or "HIVE\\key : name". The hives themselves are not compared as files.
"""
import hashlib
import io
import json
import sys

from dissect.ntfs import NTFS
from dissect.regf import RegistryHive
from dissect.util.stream import RangeStream

HIVES = ('SYSTEM', 'SOFTWARE', 'DRIVERS')
CONFIG = '/windows/system32/config/'


def files(record, path, out):
    for entry in record.listdir().values():
        name = entry.attribute.file_name
        child = entry.dereference()
        full = path + '/' + name
        if path == '' and name.startswith('$') or name == '.':
            continue
        if child.is_dir():
            out[full + '/'] = 'folder'
            files(child, full, out)
        else:
            out[full] = hashlib.sha256(child.open().read()).hexdigest()


def tree(key, path, out):
    out[path] = 'key'
    for value in key.values():
        name = '(default)' if value.name in ('', '(Default)') else value.name
        out['%s : %s' % (path, name)] = '%d %s' % (int(value.type), hashlib.sha256(bytes(value.data or b'')).hexdigest())
    for sub in key.subkeys():
        tree(sub, path + '\\' + sub.name, out)


def content(offset, image):
    volume = NTFS(RangeStream(open(image, 'rb'), offset, 1 << 50))
    found = {}
    files(volume.mft.get(5), '', found)
    out = {}
    for path, digest in found.items():
        if path.lower().startswith(CONFIG) and path[len(CONFIG):].upper() in HIVES:
            data = volume.mft.get(path.lstrip('/').replace('/', '\\')).open().read()
            name = path[len(CONFIG):].upper()
            tree(RegistryHive(io.BytesIO(data)).root(), name, out)
        else:
            out[path] = digest
    return out


def main(offset, before, after):
    sys.setrecursionlimit(5000)
    old, new = content(offset, before), content(offset, after)
    lines = ['- ' + item for item in old if item not in new]
    lines += ['+ ' + item for item in new if item not in old]
    lines += ['~ ' + item for item in old if item in new and old[item] != new[item]]
    print(json.dumps(sorted(lines)))


if __name__ == '__main__':
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3])
