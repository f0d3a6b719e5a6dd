"""choose.py MODE ... - a second, independent reading of INFs and choice of drivers.

  sections GUESTS INF...       which models section of each INF each guest takes, and the ids in it
  tree GUESTS TREE             which folder and section each driver of a virtio-win tree comes from
  filemap GUESTS FILEMAP       the same folders, from the build system's file map alone
  media FILEMAP CORPUS RELEASE TREE
                               gives every folder of a made tree the INF that the published media have there: that of the
                               build that the folder is copied from; where no INF of it is known, one for that kernel

GUESTS is a JSON file: a list of {name, arch, build, server, product, suite}.  The answer is JSON on standard output.
Written from Microsoft's "INF Manufacturer Section", "INF Models Section", "Combining Platform Extensions with Operating
System Versions", "General Syntax Rules for INF Files", and the tables of the driver reference (sections 3 and 4.3); not
from winject's source.
"""
import glob
import json
import os
import re
import sys

# First build, kernel, folders made for it (clients, servers), newest first: section 3
KERNELS = [(10240, (10, 0)), (9600, (6, 3)), (9200, (6, 2)), (7600, (6, 1)), (6000, (6, 0)), (3790, (5, 2)), (0, (5, 1))]
# Section 4.3, "recommended default table"
CLIENTS = [(22000, ['w11', 'w10']), (10240, ['w10']), (9600, ['w8.1', '2k12R2', 'w8']), (9200, ['w8', '2k12']),
           (7600, ['w7', '2k8R2']), (6000, ['2k8']), (3790, ['2k3']), (0, ['xp'])]
SERVERS = [(26100, ['2k25', '2k22', 'w11', '2k19']), (20348, ['2k22', '2k19', '2k16']), (17763, ['2k19', '2k16', 'w10']),
           (10240, ['2k16', 'w10']), (9600, ['2k12R2', 'w8.1', '2k12']), (9200, ['2k12', 'w8']), (7600, ['2k8R2', 'w7']),
           (6000, ['2k8']), (0, ['2k3'])]
# The Windows that a folder is made for, by its first build
MADE_FOR = {'xp': 2600, '2k3': 3790, '2k8': 6000, 'w7': 7600, '2k8R2': 7600, 'w8': 9200, '2k12': 9200, 'w8.1': 9600,
            '2k12R2': 9600, 'w10': 10240, '2k16': 14393, '2k19': 17763, '2k22': 20348, 'w11': 22000, '2k25': 26100}
BOOT = ('viostor.inf', 'vioscsi.inf')


def kernel(build):
    return next(version for first, version in KERNELS if build >= first)


def buckets(guest):
    return next(names for first, names in (SERVERS if guest['server'] else CLIENTS) if guest['build'] >= first)


# ---------------------------------------------------------------- INF text

def text_of(data):
    if data[:2] == b'\xff\xfe':
        return data[2:].decode('utf-16-le')
    if data[:2] == b'\xfe\xff':
        return data[2:].decode('utf-16-be')
    if data[:3] == b'\xef\xbb\xbf':
        return data[3:].decode('utf-8')
    try:
        return data.decode('utf-8')
    except UnicodeDecodeError:
        return data.decode('cp1252', 'replace')


TOKEN = re.compile(r'"((?:[^"]|"")*)"?|([^",=;]+)|([,=;])')


def entry(line):
    """(key or None, fields) of one logical line."""
    key, fields, current = None, [], ''
    for quoted, plain, mark in TOKEN.findall(line):
        if mark == ';':
            break
        if mark == '=' and key is None and not fields:
            key, current = current.strip(), ''
        elif mark == ',':
            fields.append(current.strip())
            current = ''
        else:
            current += quoted.replace('""', '"') or plain or mark
    return key, fields + [current.strip()]


def read_inf(data):
    sections, current = {}, None
    lines = iter(text_of(data).splitlines())
    for line in lines:
        line = line.strip(' \t\x1a\0')
        while True:
            bare = re.sub(r'"[^"]*"', lambda m: '"' * len(m.group()), line)
            bare = bare[:bare.index(';')] if ';' in bare else bare
            if not bare.rstrip().endswith('\\'):
                break
            line = line[:len(bare.rstrip()) - 1] + next(lines, '').strip()
        if line.startswith('['):
            current = sections.setdefault(line[1:line.index(']')].strip().lower(), [])
        elif line and not line.startswith(';') and current is not None:
            current.append(entry(line))
    strings = {k.lower(): ','.join(v) for name in ('strings', 'strings.0009', 'strings.0409')
               for k, v in sections.get(name, []) if k}
    return sections, lambda text: re.sub('%([^%]+)%', lambda m: strings.get(m.group(1).lower(), m.group()), text)


def number(text):
    return int(text, 16 if text.lower().startswith('0x') else 10)


class Target:
    """NT[cpu][.major[.minor[.product type[.suite mask[.build]]]]]"""

    def __init__(self, text):
        found = re.fullmatch(r'(?i)nt(x86|ia64|amd64|arm64|arm)?((?:\.(?:0x[0-9a-f]+|[0-9]*)){0,5})', text)
        if not found:
            raise ValueError(text)
        self.text = text
        self.arch = (found.group(1) or 'x86').lower()
        fields = [number(f) if f else None for f in found.group(2).split('.')[1:]]
        self.major, self.minor, self.product, self.suite, self.build = (fields + [None] * 5)[:5]
        if self.major is None and self.minor is not None:
            raise ValueError(text)
        self.version = (self.major or 0, self.minor or 0)

    def fits(self, guest):
        own = kernel(guest['build'])
        if self.arch != guest['arch'] or self.version > own:
            return False
        if self.build is not None:
            # systems before build 14310 do not know the field, and do not take such a section
            if guest['build'] < 14310 or self.version + (self.build,) > own + (guest['build'],):
                return False
        if self.product is not None and self.product != guest['product']:
            return False
        return self.suite is None or guest['suite'] & self.suite == self.suite

    def closer(self, other):
        """Whether the rules put this before another one that fits too; None where they say nothing."""
        if self.version != other.version:
            return self.version > other.version
        mine, theirs = (self.build or 0, self.detail()), (other.build or 0, other.detail())
        if mine[0] >= theirs[0] and mine[1] >= theirs[1] and mine != theirs:
            return True
        if mine[0] <= theirs[0] and mine[1] <= theirs[1] and mine != theirs:
            return False
        return None

    def detail(self):
        return (self.product is not None) + bin(self.suite or 0).count('1')


def sections_for(inf, guest):
    """For each maker (section, ids), or None; 'open' where the documented rules leave several."""
    sections, expand = inf
    out = []
    for key, fields in sections.get('manufacturer', []):
        base = expand(fields[0])
        targets = []
        for text in fields[1:]:
            try:
                targets.append(Target(expand(text)))
            except ValueError:
                pass
        fitting = [t for t in targets if t.fits(guest)]
        if not fitting:
            # the section without decorations serves x86 only
            plain = guest['arch'] == 'x86' and (not targets or base.lower() in sections)
            name = base if plain else None
        else:
            best = [t for t in fitting if all(o is t or o.closer(t) is False for o in fitting)]
            equal = len({(t.version, t.build, t.product, t.suite) for t in fitting}) < len(fitting)
            if len(best) != 1 or equal:
                out.append('open')
                continue
            name = base + '.' + best[0].text
        models = [] if name is None else sections.get(name.lower(), [])
        devices = [[expand(f) for f in fields[1:] if f] for key, fields in models if key is not None]
        out.append([name, [d for d in devices if d]] if any(devices) else None)
    return out


def section_of(inf, guest):
    """The first maker's section that has devices, and 'open' if the rules do not say which."""
    for found in sections_for(inf, guest):
        if found:
            return found if found == 'open' else found[0]
    return None


# ---------------------------------------------------------------- media

def candidates(tree):
    """(driver, INF name) -> [(folder, bucket, CPU, by driver)]"""
    out, shared = {}, []
    names = {name.lower(): name for name in MADE_FOR}
    arches = {'x86': 'x86', 'i386': 'x86', 'amd64': 'amd64', 'arm64': 'arm64'}
    for path in sorted(glob.glob(os.path.join(glob.escape(tree), '*/*/**/*'), recursive=True)):
        if not path.lower().endswith('.inf'):
            continue
        parts = os.path.relpath(path, tree).split(os.sep)
        file = parts[-1].lower()
        if 'sriov' in (p.lower() for p in parts) or file == 'vioprot.inf':
            continue
        if len(parts) == 4:
            driver, bucket, arch = parts[:3]
            out.setdefault((driver, file), []).append((path, names[bucket.lower()], arches[arch.lower()], True))
        else:
            shared.append((path, names[parts[1].lower()], arches[parts[0].lower()], False))
    for path, bucket, arch, _ in shared:
        file = os.path.basename(path).lower()
        key = next((k for k in out if k[1] == file), (file[:-4], file))
        out.setdefault(key, []).append((path, bucket, arch, False))
    if any(file == 'fwcfg.inf' for _, file in out):
        out = {k: v for k, v in out.items() if k[1] != 'qemufwcfg.inf'}
    return out


def order(guest, is_boot):
    """The folders to try: the table's; what is no boot driver also from older systems of the same kernel family."""
    own = buckets(guest)
    listed = [b for b in own if not (is_boot and kernel(MADE_FOR[b]) > kernel(guest['build']))]
    if is_boot:
        return listed
    older = [b for b in MADE_FOR if b not in own and MADE_FOR[b] <= guest['build']]
    return listed + sorted(older, key=lambda b: (-MADE_FOR[b], b.startswith('2k') != guest['server']))


def choose(found, infs, guest, is_boot):
    for bucket in order(guest, is_boot):
        for path, its_bucket, arch, _ in sorted(found, key=lambda c: not c[3]):
            if its_bucket == bucket and arch == guest['arch']:
                inf = infs[path]
                section = section_of(inf, guest)
                foreign = kernel(MADE_FOR[bucket])[0] != kernel(guest['build'])[0]
                listed = bucket in buckets(guest)
                if section and (listed or not foreign or not has_service(inf)):
                    return [bucket, section]
    return None


def has_service(inf):
    return any((key or '').lower() == 'addservice' and fields[0] for name, lines in inf[0].items()
               if name.endswith('.services') for key, fields in lines)


def tree(guests, root):
    found = candidates(root)
    infs = {path: read_inf(open(path, 'rb').read()) for c in found.values() for path, _, _, _ in c}
    out = {}
    for guest in guests:
        chosen = {}
        for (driver, file), places in found.items():
            one = choose(places, infs, guest, file in BOOT)
            if one:
                chosen[driver + '/' + file] = one
        out[guest['name']] = chosen if any(k.endswith(BOOT) for k in chosen) else None
    return out


def filemap(guests, path):
    """Only the two disk drivers: folders by the table, as far as the media have them."""
    drivers = json.load(open(path))['DRIVER_OS_MAP']
    out = {}
    for guest in guests:
        out[guest['name']] = {}
        for driver in ('viostor', 'vioscsi'):
            there = {t.lower() for targets in drivers[driver].values() for t in targets}
            names = [b for b in order(guest, True) if '%s/%s' % (b.lower(), guest['arch']) in there]
            if names:
                out[guest['name']][driver] = names[0]
    return out


VERSIONS = {'Wxp': '5.1', 'Wnet': '5.2', 'Wlh': '6.0', 'Win7': '6.1', 'Win8': '6.2', 'Win8.1': '6.3', 'Win10': '10.0',
            'Win11': '10.0...22000'}


def media(filemap_path, corpus, release, root):
    drivers = json.load(open(filemap_path))['DRIVER_OS_MAP']
    real = {}
    for path in glob.glob(os.path.join(corpus, 'virtio-win-' + release, '**', '*.inf'), recursive=True):
        parts = os.path.relpath(path, os.path.join(corpus, 'virtio-win-' + release)).split(os.sep)
        targets = ['/'.join(parts[1:3])] if len(parts) == 4 else [s + '/amd64' for s in parts[0].split('-')]
        for target in targets:
            real[os.path.basename(path).lower(), target] = path
    count = 0
    for path, bucket, arch, by_driver in sum(candidates(root).values(), []):
        parts = os.path.relpath(path, root).split(os.sep)
        file = parts[-1].lower()
        target = '/'.join(parts[1:3]) if by_driver else '%s/%s' % (bucket, arch)
        driver = parts[0] if by_driver else file[:-4]
        build, targets = next(((b, t) for b, t in drivers[driver].items() if target in t), (None, []))
        if build is None:
            continue
        known = [real[file, t] for t in [target] + targets if (file, t) in real]
        if known:
            data = open(known[0], 'rb').read()
        else:
            version = VERSIONS.get(build.split('/')[0])
            if version is None:
                continue
            text = text_of(open(path, 'rb').read())
            text = re.sub(r'(?i)\bNT(x86|amd64|arm64)\.(10\.0|[56]\.[0-3])(\.\.\.[0-9]+)?', r'NT\1.' + version, text)
            data = text.encode()
        with open(path, 'wb') as out:
            out.write(data)
        count += 1
    return count


def main():
    mode, arguments = sys.argv[1], sys.argv[2:]
    if mode == 'media':
        answer = media(*arguments)
    else:
        guests = json.load(open(arguments[0]))
        if mode == 'sections':
            answer = {}
            for path in arguments[1:]:
                inf = read_inf(open(path, 'rb').read())
                answer[path] = {g['name']: sections_for(inf, g) for g in guests}
        else:
            answer = {'tree': tree, 'filemap': filemap}[mode](guests, arguments[1])
    json.dump(answer, sys.stdout)


main()
