#!/usr/bin/env python3
"""netsettings.py HIVE [OLD=NEW ...] - what has to be run to give a guest's network settings to new adapters.

Reads a SYSTEM hive with dissect.regf, knows nothing of winject, and prints JSON: {"adapters": [{"guid", "name", "mac",
"ghost"}], "kept": [{"guid", "mac", "netsh": [arguments of netsh]}], "released": [guid]}. An adapter is kept when it is a
device of the machine that is there, its MAC address is recorded, and something was set by hand; or when OLD (a MAC
address, or a connection's name) names it, which then gets the MAC address NEW. Released are ghosts that hold an IPv4
address of a kept one.
"""
import ipaddress
import json
import re
import struct
import sys

from dissect.regf import RegistryHive

NET = '{4d36e972-e325-11ce-bfc1-08002be10318}'
NSI = '{eb004a%s-9b1a-11d4-9123-0050047759bc}'
TIMES = '{83da6326-97a6-4088-9453-a1923f573b29}'


class Settings:
    def __init__(self, path):
        self.hive = RegistryHive(open(path, 'rb'))
        current = self.dword('Select', 'Current')
        self.set = 'ControlSet%03d\\' % current

    def key(self, path):
        try:
            return self.hive.open(path)
        except Exception:
            return None

    def raw(self, path, name):
        key = self.key(path)
        for value in key.values() if key else ():
            own = '' if value.name in ('(Default)', '(default)') else value.name
            if own.lower() == name.lower():
                return int(value.type), bytes(value.data or b'')
        return None, b''

    def dword(self, path, name):
        kind, data = self.raw(path, name)
        return struct.unpack('<I', data)[0] if kind == 4 and len(data) == 4 else None

    def texts(self, path, name):
        kind, data = self.raw(path, name)
        if kind not in (1, 2, 7):
            return []
        parts = data.decode('utf-16-le', 'replace').split('\0')
        out = []
        for part in parts if kind == 7 else parts[:1]:
            if not part:
                break
            out.append(part)
        return out

    def text(self, path, name):
        return (self.texts(path, name) or [''])[0] if self.raw(path, name)[0] != 7 else ''

    def subkeys(self, path):
        key = self.key(path)
        return [sub.name for sub in key.subkeys()] if key else []

    def records(self, module, table):
        key = self.key(self.set + 'Control\\Nsi\\%s\\%s' % (NSI % module, table))
        for value in key.values() if key else ():
            yield value.name, bytes(value.data or b'')


def mac_text(data):
    ok = len(data) == 6 and not data[0] & 1 and any(data)
    return ':'.join('%02x' % byte for byte in data) if ok else None


def guid_text(data):
    a, b, c = struct.unpack('<IHH', data[:8])
    return '{%08X-%04X-%04X-%s-%s}' % (a, b, c, data[8:10].hex().upper(), data[10:].hex().upper())


def serial_mac(instance):
    match = re.fullmatch(r'PCI\\.*\\([0-9A-F]{16})00', instance, re.I)
    if not match:
        return None
    high, low = (bytes.fromhex(part) for part in (match[1][:8], match[1][8:]))
    if high[3] == 0xff and low[0] == 0xff:
        return mac_text(high[:3] + low[1:])
    high, low = high[::-1], low[::-1]
    return mac_text(high[:3] + low[1:]) if high[3] == 0xff and low[0] == 0xfe else None


def address(kind, text):
    try:
        return kind(text)
    except ValueError:
        return None


def usable(text):
    found = address(ipaddress.IPv4Address, text)
    bad = found is None or found.is_unspecified or found.is_multicast or found.is_loopback
    return None if bad or str(found) == '255.255.255.255' else found


def prefix(mask):
    found = address(ipaddress.IPv4Address, mask)
    bits = format(int(found), '032b') if found is not None else '01'
    return None if '01' in bits or '1' not in bits else bits.count('1')


def servers(kind, text):
    return [str(found) for item in re.split('[ ,;]+', text) if (found := address(kind, item)) is not None]


class Adapter:
    def __init__(self, hive, guid):
        self.hive, self.guid = hive, guid
        self.ghost, self.physical, self.luid, self.mac = True, False, None, None
        self.team = False
        self.name = hive.text(hive.set + 'Control\\Network\\%s\\%s\\Connection' % (NET, guid), 'Name')
        for number in hive.subkeys(hive.set + 'Control\\Class\\' + NET):
            key = hive.set + 'Control\\Class\\%s\\%s' % (NET, number)
            if hive.text(key, 'NetCfgInstanceId').upper() == guid:
                self.read_device(key)
        self.netsh, self.addresses = [], set()
        self.read_ipv4()
        self.read_ipv6()

    def read_device(self, key):
        hive = self.hive
        instance = hive.text(key, 'DeviceInstanceID')
        self.team = hive.text(key, 'ComponentId').upper() == 'COMPOSITEBUS\\MS_IMPLAT_MP'
        self.physical = bool((hive.dword(key, 'Characteristics') or 0) & 4) and not self.team
        index, kind = hive.dword(key, 'NetLuidIndex'), hive.dword(key, '*IfType')
        if index is not None and kind is not None:
            self.luid = (b'\0\0\0' + struct.pack('<I', index)[:3] + struct.pack('<H', kind)).hex()
        device = hive.set + 'Enum\\' + instance
        times = {}
        for number in ('0066', '0067'):
            data = hive.raw(device + '\\Properties\\%s\\%s' % (TIMES, number), '')[1]
            times[number] = struct.unpack('<Q', data)[0] if len(data) == 8 else 0
        root = hive.raw(hive.set + 'Enum\\ACPI_HAL\\PNP0C08\\0\\Properties\\%s\\0066' % TIMES, '')[1]
        start = struct.unpack('<Q', root)[0] if len(root) == 8 else 0
        dns = hive.set + 'Services\\Tcpip\\Parameters\\DNSRegisteredAdapters\\' + self.guid
        bus = instance.split('\\')[0].upper() in ('PCI', 'VMBUS', 'XEN', 'XENVIF')
        self.ghost = bool(instance) and (
            hive.key(device) is None
            or times['0067'] > times['0066']
            or bus and 0 < times['0066'] < start
            or not times['0066'] and hive.dword(dns, 'StaleAdapter') == 1)
        setup = hive.set + 'Control\\NetworkSetup2\\Interfaces\\%s\\Kernel' % self.guid
        record = next((mac_text(data[0x464:0x46a]) for _, data in hive.records('11', '10')
                       if len(data) == 2312 and guid_text(data[0x410:0x420]) == self.guid
                       and data[0x462:0x464] == b'\6\0'), None)
        setting = re.sub('[:-]', '', hive.text(key, 'NetworkAddress'))
        setting = mac_text(bytes.fromhex(setting)) if re.fullmatch('[0-9A-Fa-f]{12}', setting) else None
        self.mac = mac_text(hive.raw(setup, 'PermanentAddress')[1]) or record or serial_mac(instance) or setting

    def say(self, text):
        self.netsh.append(text)

    def read_ipv4(self):
        hive = self.hive
        key = hive.set + 'Services\\Tcpip\\Parameters\\Interfaces\\' + self.guid
        static = hive.dword(key, 'EnableDHCP') == 0
        if static:
            self.static(key)
        metric = hive.dword(key, 'InterfaceMetric')
        if metric and metric < 10000:
            self.say('interface ipv4 set interface interface={index} metric=%d' % metric)
        persistent = [name.split(',')[:3] for name in
                      (value.name for value in getattr(hive.key(hive.set + 'Services\\Tcpip\\Parameters\\PersistentRoutes'),
                                                       'values', list)())]
        for name, _ in hive.records('00', '16'):
            data = bytes.fromhex(name) if re.fullmatch('[0-9a-fA-F]{96}', name) else b''
            if self.luid is None or data[24:32].hex() != self.luid:
                continue
            network = '%s/%d' % (ipaddress.IPv4Address(data[4:8]), data[8])
            hop = str(ipaddress.IPv4Address(data[40:44]))
            mask = str(ipaddress.IPv4Network((0, data[8])).netmask)
            if data[8] and [network.split('/')[0], mask, hop] not in persistent:
                self.say('interface ipv4 add route prefix=%s interface={index} nexthop=%s' % (network, hop))
        register = 'primary'
        if hive.dword(key, 'RegistrationEnabled') == 0:
            register = 'none'
        elif hive.dword(key, 'RegisterAdapterName') == 1:
            register = 'both'
        dns = servers(ipaddress.IPv4Address, hive.text(key, 'NameServer'))
        if not dns and register != 'primary':
            source = 'source=static address=none' if static else 'source=dhcp'
            self.say('interface ipv4 set dnsservers name={index} %s register=%s' % (source, register))
        self.dns('ipv4', '{index}', dns, register)
        self.suffix = hive.text(key, 'Domain')

    def static(self, key):
        hive = self.hive
        masks = hive.texts(key, 'SubnetMask')
        found = []
        for at, text in enumerate(hive.texts(key, 'IPAddress')):
            bits = prefix(masks[at]) if at < len(masks) else None
            if usable(text) is not None and bits:
                found.append((text, str(ipaddress.IPv4Network((0, bits)).netmask), self.skips(text)))
        self.addresses = {text for text, _, _ in found}
        gateways = []
        metrics = hive.texts(key, 'DefaultGatewayMetric')
        for at, text in enumerate(hive.texts(key, 'DefaultGateway')):
            metric = int(metrics[at]) if at < len(metrics) and metrics[at].isdigit() else 0
            if usable(text) is not None:
                gateways.append('gateway=' + text + (' gwmetric=%d' % metric if 0 < metric < 10000 else ''))
        if not found:
            return
        first = next((item for item in found if not item[2]), found[0])
        found.remove(first)
        self.say('interface ipv4 set address name={index} source=static address=%s mask=%s %s'
                 % (first[0], first[1], gateways[0] if gateways else 'gateway=none'))
        for text, mask, skip in found:
            tail = ' skipassource=true' if skip else ''
            self.say('interface ipv4 add address name={index} address=%s mask=%s%s' % (text, mask, tail))
        for gateway in gateways[1:]:
            self.say('interface ipv4 add address name={index} ' + gateway)

    def skips(self, text):
        if self.luid is None:
            return False
        name = self.luid + ipaddress.IPv4Address(text).packed.hex() + '00000000'
        return any(own.lower() == name and data[17:18] == b'\1' for own, data in self.hive.records('00', '10'))

    def read_ipv6(self):
        for name, data in self.hive.records('01', '10'):
            if self.luid is not None and name.lower().startswith(self.luid) and len(name) == 48 and 0 < data[16] <= 128:
                tail = ' skipassource=true' if data[17] == 1 else ''
                self.say('interface ipv6 add address interface={index6} address=%s/%d%s'
                         % (ipaddress.IPv6Address(bytes.fromhex(name[16:])), data[16], tail))
        for name, _ in self.hive.records('01', '16'):
            data = bytes.fromhex(name) if re.fullmatch('[0-9a-fA-F]{144}', name) else b''
            if self.luid is not None and data[40:48].hex() == self.luid:
                self.say('interface ipv6 add route prefix=%s/%d interface={index6} nexthop=%s'
                         % (ipaddress.IPv6Address(data[4:20]), data[20], ipaddress.IPv6Address(data[56:72])))
        key = self.hive.set + 'Services\\Tcpip6\\Parameters\\Interfaces\\' + self.guid
        self.dns('ipv6', '{index6}', servers(ipaddress.IPv6Address, self.hive.text(key, 'NameServer')), 'primary')

    def dns(self, family, index, found, register):
        for at, server in enumerate(found, 1):
            if at == 1:
                self.say('interface %s set dnsservers name=%s source=static address=%s register=%s validate=no'
                         % (family, index, server, register))
            else:
                self.say('interface %s add dnsservers name=%s address=%s index=%d validate=no'
                         % (family, index, server, at))

    def rename(self):
        unsafe = set('\\/:*?"<>|{}%!')
        bad = not 0 < len(self.name) < 256 or any(c in unsafe or ord(c) < 32 or 127 <= ord(c) < 160 for c in self.name)
        return [] if bad else ['interface set interface name={name} newname="%s"' % self.name]


def main():
    hive = Settings(sys.argv[1])
    wanted = dict(argument.rsplit('=', 1) for argument in sys.argv[2:])
    guids = set()
    for number in hive.subkeys(hive.set + 'Control\\Class\\' + NET):
        guids.add(hive.text(hive.set + 'Control\\Class\\%s\\%s' % (NET, number), 'NetCfgInstanceId').upper())
    guids.update(name.upper() for name in hive.subkeys(hive.set + 'Services\\Tcpip\\Parameters\\Interfaces'))
    adapters = [Adapter(hive, guid) for guid in sorted(guids) if re.fullmatch(r'\{[0-9A-F-]{36}\}', guid)]
    kept, released = [], []
    for adapter in adapters:
        new = next((new for old, new in wanted.items() if old.lower() in (adapter.mac, adapter.name.lower())), None)
        own = adapter.mac if adapter.physical and not adapter.ghost and (adapter.netsh or adapter.suffix) else None
        if new or own:
            kept.append({'guid': adapter.guid, 'mac': new or own, 'netsh': adapter.netsh + adapter.rename()})
    of_kept = set().union(*(a.addresses for a in adapters if any(k['guid'] == a.guid for k in kept)))
    for adapter in adapters:
        if adapter.ghost and adapter.addresses & of_kept and all(k['guid'] != adapter.guid for k in kept):
            released.append(adapter.guid)
    shown = [{'guid': a.guid, 'name': a.name, 'mac': a.mac, 'ghost': a.ghost} for a in adapters
             if a.physical or a.team or a.netsh or a.suffix]
    json.dump({'adapters': shown, 'kept': kept, 'released': sorted(released)}, sys.stdout, indent=1)


main()
