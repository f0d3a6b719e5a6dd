"""will_it_boot.py OFFSET=IMAGE... - a second, independent answer to "will it boot from virtio?".

Reads the NTFS volume at byte OFFSET of each raw image with dissect.ntfs and the SYSTEM and SOFTWARE hives with
dissect.regf.  Prints one JSON list: for each image {"virtio-blk": [reason, ...], "virtio-scsi": [...]}; an empty list
of reasons means yes.  Written from the documentation of Windows' boot, not from winject's source.
"""
import io
import json
import struct
import sys

from dissect.ntfs import NTFS
from dissect.regf import RegistryHive
from dissect.util.stream import RangeStream

MACHINES = {0x14C: 'x86', 0x8664: 'amd64', 0xAA64: 'arm64'}
DEVICES = {'virtio-blk': ((0x1001, 2, 0), (0x1042, 0x1100, 1)), 'virtio-scsi': ((0x1004, 8, 0), (0x1048, 0x1100, 1))}
BUS_TYPE = {'viostor': 1, 'vioscsi': 10}


class Missing(Exception):
    pass


def key(hive, path):
    try:
        return hive.open(path)
    except Exception:
        return None


def value(node, name):
    if node is None:
        return None
    try:
        return node.value(name).value
    except Exception:
        return None


def read(volume, path):
    try:
        record = volume.mft.get(path)
        if record.is_dir():
            return None
        return record.open().read()
    except Exception:
        return None


def pe(data):
    """(machine, subsystem, signed); Missing when the file is no whole program."""
    try:
        if data[:2] != b'MZ':
            raise Missing
        at = struct.unpack_from('<I', data, 0x3C)[0]
        if data[at:at + 4] != b'PE\0\0':
            raise Missing
        machine, sections = struct.unpack_from('<HH', data, at + 4)
        size = struct.unpack_from('<H', data, at + 20)[0]
        optional = at + 24
        wide = struct.unpack_from('<H', data, optional)[0] == 0x20B
        subsystem = struct.unpack_from('<H', data, optional + 68)[0]
        where, length = struct.unpack_from('<II', data, optional + (112 if wide else 96) + 32)
        for i in range(sections):
            raw, start = struct.unpack_from('<II', data, optional + size + 40 * i + 16)
            if raw and start + raw > len(data):
                raise Missing
    except struct.error:
        raise Missing
    if where and length and where + length > len(data):
        raise Missing
    return machine, subsystem, bool(where and length)


def image_file(text, service):
    text = (text or 'System32\\drivers\\%s.sys' % service).rstrip('\0')
    low = text.lower()
    for prefix in ('\\systemroot\\', '%systemroot%\\', '\\??\\c:\\windows\\', 'c:\\windows\\'):
        if low.startswith(prefix):
            return 'Windows\\' + text[len(prefix):]
    if low.startswith(('\\', '%')) or low[1:2] == ':':
        return None
    return 'Windows\\' + text


def ids(device, subsystem, revision):
    base = 'PCI\\VEN_1AF4&DEV_%04X' % device
    return [base + '&SUBSYS_%04X1AF4&REV_%02X' % (subsystem, revision), base + '&SUBSYS_%04X1AF4' % subsystem,
            base + '&CC_010000', base + '&CC_0100', base + '&REV_%02X' % revision, base,
            'PCI\\VEN_1AF4&CC_010000', 'PCI\\VEN_1AF4&CC_0100', 'PCI\\VEN_1AF4', 'PCI\\CC_010000', 'PCI\\CC_0100']


def bind_database(system, build, device):
    """(service, None) or (None, reasons)."""
    reasons = []
    for id_ in ids(*device):
        node = key(system, 'DriverDatabase\\DeviceIds\\' + id_)
        if node is None:
            continue
        for inf in [v.name for v in node.values()]:
            if not inf or inf == '(Default)':
                continue
            package = value(key(system, 'DriverDatabase\\DriverInfFiles\\' + inf), 'Active')
            if not package:
                reasons.append('package-not-active')
                continue
            base = 'DriverDatabase\\DriverPackages\\' + package
            node = key(system, base)
            if node is None:
                reasons.append('package-missing')
                continue
            if build >= 10240 and len(value(node, 'Version') or b'') != 48:
                reasons.append('no-version')
                continue
            configuration = value(key(system, base + '\\Descriptors\\' + id_), 'Configuration')
            if configuration is None:
                reasons.append('no-descriptor')
                continue
            service = value(key(system, base + '\\Configurations\\' + configuration), 'Service')
            if not service:
                reasons.append('no-configuration')
                continue
            return service, None
    return None, reasons or ['no-device-id']


def bind_critical(system, control, device):
    for id_ in ids(*device):
        service = value(key(system, control + '\\Control\\CriticalDeviceDatabase\\' + id_.replace('\\', '#')), 'Service')
        if service:
            return service, None
    return None, ['no-device-id']


def driver(system, control, volume, machine, service):
    base = '%s\\Services\\%s' % (control, service)
    node = key(system, base)
    if node is None:
        return ['no-service']
    reasons = []
    if value(node, 'Start') != 0:
        reasons.append('start-type')
    override = key(system, base + '\\StartOverride')
    if override is not None and any(v.value != 0 for v in override.values() if isinstance(v.value, int)):
        reasons.append('start-override')
    if value(node, 'Type') != 1:
        reasons.append('service-type')
    bus = value(key(system, base + '\\Parameters'), 'BusType')
    if bus is not None and service.lower() in BUS_TYPE and bus != BUS_TYPE[service.lower()]:
        reasons.append('bus-type')
    path = image_file(value(node, 'ImagePath'), service)
    if path is None:
        return reasons + ['image-path']
    data = read(volume, path)
    if data is None:
        return reasons + ['file-missing']
    try:
        found, subsystem, signed = pe(data)
    except Missing:
        return reasons + ['not-a-program']
    if found != machine:
        reasons.append('wrong-machine')
    if subsystem != 1:
        reasons.append('wrong-subsystem')
    if not signed and machine != 0x14C:
        reasons.append('unsigned')
    return reasons


def answer(path, offset):
    volume = NTFS(RangeStream(open(path, 'rb'), offset, 1 << 50))
    config = 'Windows\\System32\\config\\'
    data = read(volume, config + 'SYSTEM') or b''
    try:
        if len(data) < 4096 or len(data) < 4096 + struct.unpack_from('<I', data, 40)[0]:
            raise Missing
        system = RegistryHive(io.BytesIO(data))
        software = RegistryHive(io.BytesIO(read(volume, config + 'SOFTWARE') or b''))
    except Exception:
        return {bus: ['hive-damaged'] for bus in DEVICES}
    build = int(value(key(software, 'Microsoft\\Windows NT\\CurrentVersion'), 'CurrentBuildNumber'))
    select = key(system, 'Select')
    number = value(select, 'Default')            # the next start; Current is the last one
    control = 'ControlSet%03d' % (number or value(select, 'Current'))
    kernel = read(volume, 'Windows\\System32\\ntoskrnl.exe')
    machine = pe(kernel)[0]
    result = {}
    for bus, devices in DEVICES.items():
        bound, reasons = [], []
        for device in devices:
            if key(system, 'DriverDatabase') is not None:
                service, why = bind_database(system, build, device)
            elif build >= 9200:
                service, why = None, ['no-driver-database']
            else:
                service, why = bind_critical(system, control, device)
            if service:
                bound.append(service)
            else:
                reasons += why
        if bound:               # one form of the controller is enough
            reasons = []
            for service in sorted(set(bound)):
                reasons += driver(system, control, volume, machine, service)
        result[bus] = sorted(set(reasons))
    return result


if __name__ == '__main__':
    print(json.dumps([answer(path, int(offset)) for offset, path in (arg.split('=', 1) for arg in sys.argv[1:])]))
