"""windows10.py OUTDIR - the SYSTEM and SOFTWARE hives of a small make-believe Windows 10 22H2 (amd64).
windows10.py --bcd FILE - its boot configuration."""
import os
import struct
import sys
import uuid

import hive
from hive import binary, dword, expand_sz, multi_sz, sz

IN_BOX = {  # service: (start, group, error control); the values of Windows 10, 1909
    'acpi': (0, 'Core', 3), 'atapi': (0, 'SCSI Miniport', 3), 'CLFS': (0, 'Filter', 3), 'CNG': (0, 'Core', 3),
    'disk': (0, None, 0), 'EhStorClass': (0, 'PnP Filter', 1), 'FltMgr': (0, 'FSFilter Infrastructure', 3),
    'fvevol': (0, 'PnP Filter', 3), 'intelide': (3, 'System Bus Extender', 3), 'iorate': (0, 'PnP Filter', 3),
    'KSecDD': (0, 'Base', 3), 'mountmgr': (0, 'System Bus Extender', 3), 'msisadrv': (0, 'Boot Bus Extender', 3),
    'ndis': (0, 'NDIS Wrapper', 3), 'ntfs': (3, 'Boot File System', 1), 'partmgr': (0, 'System Bus Extender', 3),
    'pci': (0, 'Boot Bus Extender', 3), 'pciide': (3, 'System Bus Extender', 3), 'rdyboost': (0, 'PnP Filter', 3),
    'storahci': (0, 'SCSI Miniport', 3), 'stornvme': (3, 'SCSI Miniport', 1), 'vdrvroot': (0, 'Boot Bus Extender', 3),
    'volmgr': (0, 'System Bus Extender', 3), 'volmgrx': (0, 'System Bus Extender', 3), 'volsnap': (0, None, 3),
    'Wdf01000': (0, 'WdfLoadGroup', 1),
}
IMPORTED = ('classpnp', 'storport')     # export drivers: files that others need, without a service of their own

# of the disk that win10.sh makes
DISK, ESP, WINDOWS = (uuid.UUID('77696E6A-0000-4000-8000-00000000000%d' % n) for n in (0, 1, 3))
BOOT_MANAGER = '{9dea862c-5cdd-4e70-acc1-f32b344d4795}'
GLOBAL_SETTINGS = '{7ea2e1ac-2e61-4728-aaa3-896d9d0a9f0e}'
LOADER_SETTINGS = '{6efb52bf-1766-41db-a6b3-0ee5eff72bd7}'
MEMORY_TEST = '{b2721d73-1db4-4c62-bf78-c548a880142d}'
LOADER = '{77696e6a-0000-11eb-8000-000000000001}'
RESUME = '{77696e6a-0000-11eb-8000-000000000002}'


def driver_files():
    """The drivers' files below System32."""
    return ['drivers/%s.sys' % name.lower() for name in (*IN_BOX, *IMPORTED)]


def system():
    services = {}
    for name, (start, group, error_control) in IN_BOX.items():
        key = {'Type': dword(1), 'Start': dword(start), 'ErrorControl': dword(error_control),
               'ImagePath': expand_sz('System32\\drivers\\%s.sys' % name)}
        if group:
            key['Group'] = sz(group)
        services[name] = key
    services['storahci']['StartOverride'] = {'0': dword(3)}
    services['EventLog'] = {'System': {}}
    services['partmgr']['Parameters'] = {'SanPolicy': dword(1)}
    control = {
        'Class': {
            '{4d36e967-e325-11ce-bfc1-08002be10318}': {
                'Class': sz('DiskDrive'), 'UpperFilters': multi_sz('partmgr'), 'LowerFilters': multi_sz('EhStorClass')},
            '{4d36e96a-e325-11ce-bfc1-08002be10318}': {'Class': sz('hdc')},
            '{4d36e97b-e325-11ce-bfc1-08002be10318}': {'Class': sz('SCSIAdapter')},
            '{4d36e97d-e325-11ce-bfc1-08002be10318}': {'Class': sz('System')},
            '{71a27cdd-812a-11d0-bec7-08002be2092f}': {
                'Class': sz('Volume'), 'UpperFilters': multi_sz('volsnap'),
                'LowerFilters': multi_sz('fvevol', 'iorate', 'rdyboost')},
        },
        'CrashControl': {'AutoReboot': dword(1)},
        'ProductOptions': {'ProductType': sz('WinNT')},
        'Session Manager': {
            'Environment': {'PROCESSOR_ARCHITECTURE': sz('AMD64')},
            'Power': {'HiberbootEnabled': dword(1)},
        },
        'TimeZoneInformation': {'TimeZoneKeyName': sz('UTC')},
    }
    package = 'mshdc.inf_amd64_0000000000000001'
    database = {
        'DeviceIds': {'PCI': {'CC_010601': {'mshdc.inf': binary(b'\x02\xff\0\0')}}},
        'DriverInfFiles': {'mshdc.inf': {'': multi_sz(package), 'Active': sz(package)}},
        'DriverPackages': {package: {
            '': sz('mshdc.inf'),
            'Version': binary(bytes.fromhex('00ff090000000000' '6ae9364d25e3ce11bfc108002be10318'
                                            '00000000000000000100614a00000a00' '0000000000000000')),
            'Configurations': {'msahci_Inst': {'ConfigFlags': dword(0), 'Service': sz('storahci')}},
            'Descriptors': {'PCI': {'CC_010601': {'Configuration': sz('msahci_Inst')}}},
        }},
    }
    return {
        'ControlSet001': {'Control': control, 'Enum': {}, 'Services': services},
        'DriverDatabase': database,
        'MountedDevices': {},
        'Select': {'Current': dword(1), 'Default': dword(1), 'Failed': dword(0), 'LastKnownGood': dword(1)},
        'Setup': {'SetupType': dword(0), 'SystemSetupInProgress': dword(0), 'CmdLine': sz('')},
    }


def software():
    version = {
        'ProductName': sz('Windows 10 Pro'), 'CurrentBuild': sz('19045'), 'CurrentBuildNumber': sz('19045'),
        'CurrentVersion': sz('6.3'), 'CurrentMajorVersionNumber': dword(10), 'CurrentMinorVersionNumber': dword(0),
        'EditionID': sz('Professional'), 'InstallationType': sz('Client'), 'DisplayVersion': sz('22H2'),
        'UBR': dword(4291), 'SystemRoot': sz('C:\\Windows'), 'PathName': sz('C:\\Windows'),
        'BuildLabEx': sz('19041.1.amd64fre.vb_release.191206-1406'),
    }
    return {
        'Classes': {}, 'Policies': {'Microsoft': {}},
        'Microsoft': {
            'SystemCertificates': {'TrustedPublisher': {'Certificates': {}}},
            'Windows': {'CurrentVersion': {'DevicePath': expand_sz('%SystemRoot%\\inf'),
                                           'Setup': {'State': {'ImageState': sz('IMAGE_STATE_COMPLETE')}}}},
            'Windows NT': {'CurrentVersion': version},
        },
    }


def partition_device(partition):
    """A boot device as BCD stores it: options, kind 6 (partition), flags, length; then partition, 0, GPT, disk."""
    place = struct.pack('<16sII16s', partition.bytes_le, 0, 0, DISK.bytes_le)
    return binary(bytes(16) + struct.pack('<IIII', 6, 0, 0x48, 0) + place.ljust(0x38, b'\0'))


def bcd():
    """The boot configuration that bcdboot writes for a UEFI machine, without recovery."""
    objects = {
        BOOT_MANAGER: (0x10100002, {
            '11000001': partition_device(ESP), '12000002': sz('\\EFI\\Microsoft\\Boot\\bootmgfw.efi'),
            '12000004': sz('Windows Boot Manager'), '12000005': sz('en-US'), '14000006': multi_sz(GLOBAL_SETTINGS),
            '23000003': sz(LOADER), '23000006': sz(RESUME), '24000001': multi_sz(LOADER),
            '24000010': multi_sz(MEMORY_TEST), '25000004': binary(struct.pack('<Q', 30))}),
        LOADER: (0x10200003, {
            '11000001': partition_device(WINDOWS), '12000002': sz('\\Windows\\system32\\winload.efi'),
            '12000004': sz('Windows 10'), '12000005': sz('en-US'), '14000006': multi_sz(LOADER_SETTINGS),
            '16000060': binary(b'\1'), '17000077': binary(struct.pack('<Q', 0x15000075)),
            '21000001': partition_device(WINDOWS), '22000002': sz('\\Windows'), '23000003': sz(RESUME),
            '25000020': binary(struct.pack('<Q', 0)), '250000c2': binary(struct.pack('<Q', 1))}),
        RESUME: (0x10200004, {
            '11000001': partition_device(WINDOWS), '12000002': sz('\\Windows\\system32\\winresume.efi'),
            '12000004': sz('Windows Resume Application'), '21000001': partition_device(WINDOWS),
            '22000002': sz('\\hiberfil.sys')}),
        MEMORY_TEST: (0x10200005, {
            '11000001': partition_device(ESP), '12000002': sz('\\EFI\\Microsoft\\Boot\\memtest.efi'),
            '12000004': sz('Windows Memory Diagnostic')}),
        GLOBAL_SETTINGS: (0x20100000, {}),
        LOADER_SETTINGS: (0x20200003, {'14000006': multi_sz(GLOBAL_SETTINGS)}),
    }
    return {
        'Description': {'KeyName': sz('BCD00000000'), 'System': dword(1), 'TreatAsSystem': dword(1)},
        'Objects': {name: {'Description': {'Type': dword(kind)},
                           'Elements': {number: {'Element': value} for number, value in elements.items()}}
                    for name, (kind, elements) in objects.items()},
    }


def main():
    """OUTDIR - SYSTEM and SOFTWARE; or --bcd FILE - the boot configuration."""
    if sys.argv[1] == '--bcd':
        hives = [(sys.argv[2], 'NewStoreRoot', bcd())]
    else:
        root = 'CMI-CreateHive{00000000-0000-0000-0000-000000000000}'
        hives = [(os.path.join(sys.argv[1], name), root, tree) for name, tree in (('SYSTEM', system()), ('SOFTWARE', software()))]
    for path, root, tree in hives:
        with open(path, 'wb') as file:
            file.write(hive.build(root, tree))


if __name__ == '__main__':
    main()
