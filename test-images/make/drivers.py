"""drivers.py OUTDIR - a small driver medium in the layout of virtio-win, for Windows 10 on amd64.

The PE files hold no code that does anything, but they are whole: checksum, and an embedded signature by an authority
made here (osslsigncode); each catalogue lists the hashes of its package and is signed by the same authority.  The INF
texts are our own; hardware ids are the virtio ones.  Needs openssl and osslsigncode.
"""
import hashlib
import os
import random
import struct
import subprocess
import sys
import tempfile

CLASSES = {'SCSIAdapter': '{4D36E97B-E325-11CE-BFC1-08002BE10318}', 'Net': '{4D36E972-E325-11CE-BFC1-08002BE10318}',
           'System': '{4D36E97D-E325-11CE-BFC1-08002BE10318}'}
# folder, inf, service, class, (transitional id, subsystem), modern id, BusType
DRIVERS = [
    ('viostor', 'viostor', 'viostor', 'SCSIAdapter', (0x1001, 2), 0x1042, 1),
    ('vioscsi', 'vioscsi', 'vioscsi', 'SCSIAdapter', (0x1004, 8), 0x1048, 10),
    ('NetKVM', 'netkvm', 'netkvm', 'Net', (0x1000, 1), 0x1041, None),
    ('Balloon', 'balloon', 'BALLOON', 'System', (0x1002, 5), 0x1045, None),
]


def inf(name, service, class_, old, new, bus):
    ids = ['PCI\\VEN_1AF4&DEV_%04X&SUBSYS_%04X1AF4&REV_00, PCI\\VEN_1AF4&DEV_%04X' % (old[0], old[1], old[0]),
           'PCI\\VEN_1AF4&DEV_%04X&SUBSYS_11001AF4&REV_01, PCI\\VEN_1AF4&DEV_%04X' % (new, new)]
    lines = ['; A stand-in driver for tests.', '[Version]', 'Signature = "$WINDOWS NT$"', 'Class = %s' % class_,
             'ClassGuid = %s' % CLASSES[class_], 'Provider = %Maker%', 'DriverVer = 03/01/2026,101.2.3.4',
             'CatalogFile = %s.cat' % name, 'PnpLockdown = 1', '',
             '[SourceDisksNames]', '1 = %Medium%', '', '[SourceDisksFiles]', '%s.sys = 1' % name, '',
             '[DestinationDirs]', 'DefaultDestDir = 13' if class_ == 'SCSIAdapter' else 'DefaultDestDir = 12', '',
             '[Manufacturer]', '%Maker% = Devices, NTamd64.10.0', '', '[Devices.NTamd64.10.0]']
    lines += ['%%Device%% = Setup_Inst, %s' % i for i in ids]
    lines += ['', '[Setup_Inst]', 'CopyFiles = Payload', '', '[Payload]', '%s.sys' % name, '',
              '[Setup_Inst.HW]', 'AddReg = Interrupts', '', '[Interrupts]',
              'HKR, "Interrupt Management\\MessageSignaledInterruptProperties", MSISupported, 0x00010001, 1', '',
              '[Setup_Inst.Services]', 'AddService = %s, 0x00000002, Service_Inst' % service, '',
              '[Service_Inst]', 'DisplayName = %Device%', 'ServiceType = 1',
              'StartType = %d' % (0 if bus else 3), 'ErrorControl = 1',
              'ServiceBinary = %%%d%%\\%s.sys' % (13 if bus else 12, name)]
    if bus:
        lines += ['LoadOrderGroup = SCSI Miniport', 'AddReg = Parameters_Reg', '', '[Parameters_Reg]',
                  'HKR, "Parameters", "BusType", 0x00010001, %d' % bus,
                  'HKR, "Parameters\\PnpInterface", "5", 0x00010001, 1']
    lines += ['', '[Strings]', 'Maker = "winject tests"', 'Medium = "Test medium"', 'Device = "Test %s device"' % name, '']
    return '\r\n'.join(lines).encode()


def pe(size, seed):
    """A PE32+ image for amd64, native subsystem, with one section of bytes that nobody runs."""
    body = random.Random(seed).randbytes(64) * (size // 64)
    body += bytes(-len(body) % 512)
    header = bytearray(1024)
    header[:2] = b'MZ'
    struct.pack_into('<I', header, 0x3C, 0x80)
    struct.pack_into('<4sHHIIIHH', header, 0x80, b'PE\0\0', 0x8664, 1, 0x5F000000, 0, 0, 240, 0x22)
    struct.pack_into('<HBBIIIII', header, 0x98, 0x20B, 14, 0, len(body), 0, 0, 0x1000, 0x1000)
    struct.pack_into('<QIIHHHHHHIIIIHH', header, 0x98 + 24, 0x140000000, 0x1000, 512, 10, 0, 10, 0, 6, 1, 0,
                     0x1000 + (len(body) + 4095) // 4096 * 4096, 1024, 0, 1, 0x4160)
    struct.pack_into('<QQQQII', header, 0x98 + 72, 0x40000, 0x1000, 0x100000, 0x1000, 0, 16)
    struct.pack_into('<8sIIIIIIHHI', header, 0x98 + 240, b'.text', len(body), 0x1000, len(body), 1024, 0, 0, 0, 0, 0x68000020)
    return bytes(header) + body


def authenticode(image, algorithm):
    """The hash of a PE image without checksum, security directory and certificates."""
    start = struct.unpack_from('<I', image, 0x3C)[0] + 24
    wide = struct.unpack_from('<H', image, start)[0] == 0x20B
    directory = start + (112 if wide else 96) + 4 * 8
    at, size = struct.unpack_from('<II', image, directory)
    end = at if size else len(image)
    digest = hashlib.new(algorithm)
    for piece in (image[:start + 64], image[start + 68:directory], image[directory + 8:end]):
        digest.update(piece)
    return digest.digest()


# ------------------------------------------------------------------------- DER
def tlv(tag, *parts):
    body = b''.join(parts)
    if len(body) < 128:
        return bytes([tag, len(body)]) + body
    length = len(body).to_bytes((len(body).bit_length() + 7) // 8, 'big')
    return bytes([tag, 0x80 | len(length)]) + length + body


def oid(text):
    first, second, *rest = map(int, text.split('.'))
    out = bytes([first * 40 + second])
    for number in rest:
        piece = bytes([number & 127])
        while number > 127:
            number >>= 7
            piece = bytes([number & 127 | 128]) + piece
        out += piece
    return tlv(6, out)


def sequence(*parts):
    return tlv(0x30, *parts)


def set_of(*parts):
    return tlv(0x31, *sorted(parts))


NULL = b'\5\0'
SHA256 = sequence(oid('2.16.840.1.101.3.4.2.1'), NULL)


def member(name, digest, is_pe):
    """One file of the catalogue: its hash, and its name for people."""
    if is_pe:
        kind = sequence(oid('1.3.6.1.4.1.311.2.1.15'), sequence(tlv(3, b'\0'), tlv(0xA0, tlv(0xA2, tlv(0x80)))))
    else:
        kind = sequence(oid('1.3.6.1.4.1.311.2.1.25'), tlv(0xA2, tlv(0x80)))
    indirect = sequence(kind, sequence(SHA256, tlv(4, digest)))
    label = sequence(tlv(0x1E, 'File'.encode('utf-16be')), tlv(2, b'\1\0\1\0'[:4]),
                     tlv(4, (name + '\0').encode('utf-16le')))
    return sequence(tlv(4, digest), set_of(sequence(oid('1.3.6.1.4.1.311.2.1.4'), set_of(indirect)),
                                           sequence(oid('1.3.6.1.4.1.311.12.2.1'), set_of(label))))


def catalogue(members, authority):
    content = [sequence(oid('1.3.6.1.4.1.311.12.1.1')), tlv(4, hashlib.md5(b''.join(members)).digest()),
               tlv(0x17, b'260301000000Z'), sequence(oid('1.3.6.1.4.1.311.12.1.3'), NULL), sequence(*sorted(members))]
    list_ = sequence(*content)
    digest = hashlib.sha256(b''.join(content)).digest()
    signed = set_of(sequence(oid('1.2.840.113549.1.9.3'), set_of(oid('1.3.6.1.4.1.311.10.1'))),
                    sequence(oid('1.2.840.113549.1.9.4'), set_of(tlv(4, digest))))
    signature = authority.sign(signed)
    signer = sequence(tlv(2, b'\1'), sequence(authority.issuer, authority.serial), SHA256, b'\xA0' + signed[1:],
                      sequence(oid('1.2.840.113549.1.1.1'), NULL), tlv(4, signature))
    data = sequence(tlv(2, b'\1'), set_of(SHA256), sequence(oid('1.3.6.1.4.1.311.10.1'), tlv(0xA0, list_)),
                    tlv(0xA0, authority.certificate), set_of(signer))
    return sequence(oid('1.2.840.113549.1.7.2'), tlv(0xA0, data))


def parts_of(der):
    """The elements directly inside a DER sequence."""
    def header(at):
        length, start = der[at + 1], at + 2
        if length & 128:
            count = length & 127
            length, start = int.from_bytes(der[start:start + count], 'big'), start + count
        return start, start + length
    at, end = header(0)
    found = []
    while at < end:
        stop = header(at)[1]
        found.append(der[at:stop])
        at = stop
    return found


class Authority:
    def __init__(self, folder):
        self.folder = folder
        self.key, self.cert = os.path.join(folder, 'key.pem'), os.path.join(folder, 'cert.pem')
        subprocess.run(['openssl', 'req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-keyout', self.key, '-out', self.cert,
                        '-days', '36500', '-subj', '/O=winject tests/CN=winject test publisher', '-sha256',
                        '-addext', 'extendedKeyUsage=codeSigning'], check=True, stderr=subprocess.DEVNULL)
        self.certificate = subprocess.run(['openssl', 'x509', '-in', self.cert, '-outform', 'DER'], check=True,
                                          stdout=subprocess.PIPE).stdout
        fields = parts_of(parts_of(self.certificate)[0])
        self.serial, self.issuer = fields[1], fields[3]

    def sign(self, data):
        return subprocess.run(['openssl', 'dgst', '-sha256', '-sign', self.key], input=data, check=True,
                              stdout=subprocess.PIPE).stdout

    def sign_pe(self, image):
        source, target = os.path.join(self.folder, 'in.sys'), os.path.join(self.folder, 'out.sys')
        with open(source, 'wb') as file:
            file.write(image)
        if os.path.exists(target):
            os.remove(target)
        subprocess.run(['osslsigncode', 'sign', '-certs', self.cert, '-key', self.key, '-h', 'sha256', '-in', source,
                        '-out', target], check=True, stdout=subprocess.DEVNULL)
        with open(target, 'rb') as file:
            return file.read()


def main():
    out = sys.argv[1]
    with tempfile.TemporaryDirectory() as work:
        authority = Authority(work)
        for seed, (folder, name, service, class_, old, new, bus) in enumerate(DRIVERS):
            top = os.path.join(out, folder, 'w10', 'amd64')
            os.makedirs(top, exist_ok=True)
            files = {name + '.inf': inf(name, service, class_, old, new, bus), name + '.sys': authority.sign_pe(pe(24000, seed))}
            members = [member(f, authenticode(d, 'sha256') if f.endswith('.sys') else hashlib.sha256(d).digest(),
                              f.endswith('.sys')) for f, d in files.items()]
            files[name + '.cat'] = catalogue(members, authority)
            for file_name, data in files.items():
                with open(os.path.join(top, file_name), 'wb') as file:
                    file.write(data)
        os.makedirs(os.path.join(out, 'cert'), exist_ok=True)
        with open(os.path.join(out, 'cert', 'winject-test-publisher.cer'), 'wb') as file:
            file.write(authority.certificate)


if __name__ == '__main__':
    main()
