"""windows10.py OUTDIR - the SYSTEM and SOFTWARE hives of a small make-believe Windows 10 22H2 (amd64)."""
import os
import sys

import hive
from hive import binary, dword, expand_sz, multi_sz, sz

IN_BOX = {  # service: (start, group)
    'acpi': (0, 'Core'), 'atapi': (0, 'SCSI Miniport'), 'disk': (0, None), 'intelide': (3, 'System Bus Extender'),
    'mountmgr': (0, 'System Bus Extender'), 'ndis': (0, 'NDIS Wrapper'), 'ntfs': (3, 'Boot File System'),
    'partmgr': (0, 'System Bus Extender'), 'pci': (0, 'Boot Bus Extender'), 'pciide': (3, 'System Bus Extender'),
    'storahci': (0, 'SCSI Miniport'), 'stornvme': (3, 'SCSI Miniport'), 'volmgr': (0, 'System Bus Extender'),
    'volsnap': (0, None),
}


def system():
    services = {}
    for name, (start, group) in IN_BOX.items():
        key = {'Type': dword(1), 'Start': dword(start), 'ErrorControl': dword(1),
               'ImagePath': expand_sz('System32\\drivers\\%s.sys' % name)}
        if group:
            key['Group'] = sz(group)
        services[name] = key
    services['storahci']['StartOverride'] = {'0': dword(3)}
    services['EventLog'] = {'System': {}}
    services['partmgr']['Parameters'] = {'SanPolicy': dword(1)}
    control = {
        'Class': {'{4d36e967-e325-11ce-bfc1-08002be10318}': {'Class': sz('DiskDrive')}},
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


def main():
    out = sys.argv[1]
    for name, tree in (('SYSTEM', system()), ('SOFTWARE', software())):
        with open(os.path.join(out, name), 'wb') as file:
            file.write(hive.build('CMI-CreateHive{00000000-0000-0000-0000-000000000000}', tree))


if __name__ == '__main__':
    main()
