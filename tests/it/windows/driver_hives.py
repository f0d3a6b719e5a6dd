"""driver_hives.py OFFSET IMAGE OUTDIR - what a guest's hives say about third-party packages, by a foreign reader.

Reads the NTFS volume at byte OFFSET of a raw image with dissect.ntfs, writes the hives SYSTEM, SOFTWARE and DRIVERS to
OUTDIR and prints JSON: {"SYSTEM": {"key:name": [type, hex]}, "DRIVERS": ..., "SOFTWARE": ..., "files": {path: sha256}}.
Keys are below DriverDatabase (values of packages named oemN.inf or h2k-*.inf), the services that such an INF owns, and
PnpLockdownFiles. All names are in lower case.
"""
import hashlib
import io
import json
import os
import re
import struct
import sys

from dissect.ntfs import NTFS
from dissect.regf import RegistryHive
from dissect.util.stream import RangeStream

OURS = re.compile(r'(oem\d+|h2k-.*)\.inf$', re.I)


def key(hive, path):
    try:
        return hive.open(path)
    except Exception:
        return None


def raw(value):
    return [int(value.type), bytes(value.data or b'').hex()]


def values(node, path, out, wanted=None):
    if node is None:
        return
    for value in node.values():
        name = '' if value.name == '(Default)' else value.name
        if wanted is None or wanted(name):
            out['%s:%s' % (path.lower(), name.lower())] = raw(value)


def tree(node, path, out):
    if node is None:
        return
    values(node, path, out)
    for sub in node.subkeys():
        tree(sub, path + '\\' + sub.name, out)


def device_ids(node, path, out):
    values(node, path, out, OURS.match)
    for sub in node.subkeys():
        device_ids(sub, path + '\\' + sub.name, out)


def database(hive, out):
    root = key(hive, 'DriverDatabase')
    if root is None:
        return
    values(root, 'driverdatabase', out)
    infs = key(hive, 'DriverDatabase\\DriverInfFiles')
    for sub in infs.subkeys() if infs else ():
        if OURS.match(sub.name):
            tree(sub, 'driverdatabase\\driverinffiles\\' + sub.name, out)
    packages = key(hive, 'DriverDatabase\\DriverPackages')
    for sub in packages.subkeys() if packages else ():
        names = {v.name: v.value for v in sub.values()}
        if OURS.match(str(names.get('(Default)', ''))) or sub.name.lower().startswith('h2k-'):
            tree(sub, 'driverdatabase\\driverpackages\\' + sub.name, out)
    ids = key(hive, 'DriverDatabase\\DeviceIds')
    if ids:
        device_ids(ids, 'driverdatabase\\deviceids', out)


def services(hive, out):
    node = key(hive, 'ControlSet%03d\\Services' % key(hive, 'Select').value('Current').value)
    for sub in node.subkeys():
        owners = [v.value for v in sub.values() if v.name == 'Owners']
        if owners and any(OURS.match(str(owner)) for owner in owners[0]):
            tree(sub, 'services\\' + sub.name, out)


def files(volume, path, out):
    try:
        record = volume.mft.get(path)
    except Exception:
        return
    for entry in record.listdir().values() if record.is_dir() else ():
        child = entry.dereference()
        name = path + '\\' + entry.attribute.file_name
        if child.is_dir():
            files(volume, name, out)
        else:
            out[name.lower()] = hashlib.sha256(child.open().read()).hexdigest()


def main(offset, image, folder):
    volume = NTFS(RangeStream(open(image, 'rb'), offset, 1 << 50))
    out = {}
    for name in ('SYSTEM', 'SOFTWARE', 'DRIVERS'):
        out[name] = {}
        try:
            data = volume.mft.get('Windows\\System32\\config\\' + name).open().read()
        except Exception:
            continue
        with open(os.path.join(folder, name), 'wb') as file:
            file.write(data)
        hive = RegistryHive(io.BytesIO(data))
        database(hive, out[name])
        if name == 'SYSTEM':
            services(hive, out[name])
        if name == 'SOFTWARE':
            tree(key(hive, 'Microsoft\\Windows\\CurrentVersion\\Setup\\PnpLockdownFiles'), 'pnplockdownfiles', out[name])
            tree(key(hive, 'Microsoft\\SystemCertificates\\TrustedPublisher\\Certificates'), 'trustedpublisher', out[name])
    out['files'] = {}
    store = 'Windows\\System32\\DriverStore\\FileRepository'
    files(volume, store, out['files'])
    files(volume, 'Windows\\INF', out['files'])
    files(volume, 'Windows\\System32\\CatRoot\\{F750E6C3-38EE-11D1-85E5-00C04FC295EE}', out['files'])
    files(volume, 'Windows\\System32\\drivers', out['files'])
    out['files'] = {k: v for k, v in out['files'].items()
                    if re.search(r'\\oem\d+\.(inf|cat)$|filerepository\\(viostor|vioscsi|netkvm|balloon|viorng|vioser)'
                                 r'|drivers\\(viostor|vioscsi|netkvm|balloon|viorng|vioser)', k)}
    print(json.dumps(out))


if __name__ == '__main__':
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3])
