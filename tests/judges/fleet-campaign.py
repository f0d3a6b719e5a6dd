#!/usr/bin/python3
"""fleet-campaign.py --winject PROGRAM --guest IMAGE.qcow2 --drivers PATH [--count 200] [--jobs 2] [--seed N] [--folder DIR]
                     [--sample N] [--judge ntfs-judge.sh] [--keep]

Makes COUNT small guests (copies of IMAGE with a volume serial number of their own), damages one of a hundred in ten ways, and runs
`winject batch inject --in-place` over them. The batch is killed with SIGKILL at three random moments and started again. Then:
every id has exactly one last outcome, every good guest is injected (a sample of them is judged by `winject check`, `qemu-img check` and,
if given, the judge), every bad one is as it was by its hash, and nothing is left over. Prints a table: images a second, memory, and the
processor time that is not the workers'. Needs qemu-img and qemu-io. Exit: 0, 1 something is wrong, 2 usage.
"""
import argparse
import collections
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

WAYS = ['empty', 'cut', 'random', 'magic', 'header', 'refcounts', 'tables', 'text', 'middle', 'encrypted']


def run(*command):
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def must(*command):
    done = run(*command)
    if done.returncode:
        sys.exit('fleet-campaign: %s: %s' % (' '.join(command), (done.stderr or done.stdout).strip()[-300:]))
    return done.stdout


def digest(path):
    with open(path, 'rb') as file:
        return hashlib.sha256(file.read()).hexdigest()


def template(guest, folder):
    """A copy of the guest whose NTFS boot sector and its backup lie uncompressed, and where their serial numbers lie in the file."""
    path = os.path.join(folder, 'template.qcow2')
    shutil.copyfile(guest, path)
    raw = os.path.join(folder, 'template.raw')
    must('qemu-img', 'convert', '-O', 'raw', path, raw)
    with open(raw, 'rb') as file:
        start = next(at for at in range(0, os.path.getsize(raw), 1 << 20) if is_ntfs(file, at))
        file.seek(start)
        boot = file.read(512)
        sector = int.from_bytes(boot[11:13], 'little')
        places = [start, start + int.from_bytes(boot[40:48], 'little') * sector]
        for place in places:
            if not is_ntfs(file, place):
                sys.exit('fleet-campaign: no backup of the boot sector at %d' % place)
            cluster = place & ~0xffff
            file.seek(cluster)
            content = os.path.join(folder, 'cluster')
            with open(content, 'wb') as out:
                out.write(file.read(1 << 16))
            must('qemu-io', '-f', 'qcow2', '-c', 'write -s %s %d %d' % (content, cluster, 1 << 16), path)
    extents = json.loads(must('qemu-img', 'map', '--output=json', path))
    found = []
    for place in places:
        extent = next(e for e in extents if e['start'] <= place < e['start'] + e['length'])
        found.append(extent['offset'] + place - extent['start'] + 0x48)
    os.unlink(raw)
    return path, found


def is_ntfs(file, at):
    file.seek(at + 3)
    return file.read(8) == b'NTFS    '


def damage(path, way, chance):
    size = os.path.getsize(path)
    with open(path, 'r+b') as file:
        def put(at, data):
            file.seek(at)
            file.write(data)
        if way == 'empty':
            file.truncate(0)
        elif way == 'cut':
            file.truncate(size // 3)
        elif way == 'random':
            put(0, chance.randbytes(min(size, 1 << 20)))
        elif way == 'magic':
            put(0, b'QFI\xfa')
        elif way == 'header':
            put(24, b'\xff' * 8)
        elif way == 'refcounts':
            put(48, b'\xff' * 8)
        elif way == 'tables':
            put(40, b'\xff' * 8)
        elif way == 'text':
            put(0, b'this is no disk image\n' * 50)
        elif way == 'middle':
            # The first table of clusters: half of it.
            table = int.from_bytes(open(path, 'rb').read(48)[40:48], 'big')
            put(table, b'\x80\x00\xff\xff\xff\xff\xff\x00' * 8)
        elif way == 'encrypted':
            put(32, b'\x00\x00\x00\x01')


def last_outcomes(events):
    """The last outcome of each id, and how many runs there were; a line that a kill cut off is passed over."""
    planned, finished, runs, cpu = set(), {}, 0, 0.0
    with open(events) as file:
        for line in file:
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if event['event'] == 'begun':
                runs += 1
                seen = set()
            elif event['event'] == 'planned':
                planned.add(event['id'])
            elif event['event'] == 'finished':
                if event['id'] in seen:
                    sys.exit('fleet-campaign: %s ended twice in one run' % event['id'])
                seen.add(event['id'])
                finished[event['id']] = event
                cpu += event.get('cpu_seconds') or 0
    return planned, finished, runs, cpu


def processor_seconds():
    """The processor time of all processes that were started from here and have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def watch_memory(pid, events, every, out, stop):
    """The number of items that have ended and the resident memory of the batch in KiB, each time that EVERY more have ended."""
    ended, at = 0, os.path.getsize(events) if os.path.exists(events) else 0
    while not stop.is_set():
        try:
            with open(events, 'rb') as file:
                file.seek(at)
                text = file.read()
            whole = text.rfind(b'\n') + 1
            at += whole
            ended += text[:whole].count(b'"event":"finished"')
            with open('/proc/%d/status' % pid) as file:
                rss = next((int(line.split()[1]) for line in file if line.startswith('VmRSS')), 0)
        except FileNotFoundError:
            continue
        except OSError:
            return
        if not out or ended >= out[-1][0] + every:
            out.append((ended, rss))
        time.sleep(0.1)


def main():
    parser = argparse.ArgumentParser()
    for name in ['winject', 'guest', 'drivers']:
        parser.add_argument('--' + name, required=True)
    parser.add_argument('--count', type=int, default=200)
    parser.add_argument('--jobs', type=int, default=2)
    parser.add_argument('--seed', type=int, default=1)
    parser.add_argument('--sample', type=int, default=10)
    parser.add_argument('--folder')
    parser.add_argument('--judge')
    parser.add_argument('--keep', action='store_true')
    args = parser.parse_args()
    chance = random.Random(args.seed)
    folder = tempfile.mkdtemp(prefix='winject-fleet-', dir=args.folder)
    images = os.path.join(folder, 'images')
    os.mkdir(images)
    wrong = []
    try:
        source, serials = template(args.guest, folder)
        names, bad = [], {}
        wanted = max(args.count // 100, len(WAYS) if args.count >= 100 else 1)
        for number, victim in enumerate(chance.sample(range(args.count), wanted)):
            bad[victim] = WAYS[number % len(WAYS)]
        for number in range(args.count):
            path = os.path.join(images, 'vm-%05d.qcow2' % number)
            shutil.copyfile(source, path)
            number_of_volume = chance.randbytes(8)
            with open(path, 'r+b') as file:
                for serial in serials:
                    file.seek(serial)
                    file.write(number_of_volume)
            if number in bad:
                damage(path, bad[number], chance)
            names.append(path)
        hashes = {names[number]: digest(names[number]) for number in bad}

        results = os.path.join(folder, 'results')
        command = [args.winject, 'batch', 'inject', os.path.join(images, '*.qcow2'), '--in-place', '--drivers', args.drivers,
                   '--jobs', str(args.jobs), '--results', results, '--quiet']
        begun = time.monotonic()
        log = open(os.path.join(folder, 'log'), 'w')
        # About what a run takes: each kill comes somewhere in the first part of what is left.
        estimate = args.count * 0.1 / args.jobs
        for kill in range(3):
            child = subprocess.Popen(command, stdout=log, stderr=log)
            try:
                child.wait(timeout=0.2 + chance.random() * estimate / 4)
            except subprocess.TimeoutExpired:
                child.send_signal(signal.SIGKILL)
                child.wait()
        # What the workers of the killed run were doing ends by itself: their images are busy so long.
        code, rounds, memory = 75, 0, []
        events = os.path.join(results, 'events.jsonl')
        cpu_killed = last_outcomes(events)[3]
        before = processor_seconds()
        while code == 75 and rounds < 5:
            time.sleep(0.5)
            child = subprocess.Popen(command, stdout=log, stderr=log)
            stop = threading.Event()
            every = 1000 if args.count >= 5000 else max(1, args.count // 5)
            watcher = threading.Thread(target=watch_memory, args=(child.pid, events, every, memory, stop))
            watcher.start()
            code = child.wait()
            stop.set()
            watcher.join()
            rounds += 1
        seconds = time.monotonic() - begun
        total = processor_seconds() - before
        planned, finished, runs, cpu = last_outcomes(events)
        share = 1 - (cpu - cpu_killed) / total

        if planned != set(names) or set(finished) != set(names):
            wrong.append('%d ids planned, %d ended, of %d' % (len(planned), len(finished), len(names)))
        for number, path in enumerate(names):
            outcome = finished.get(path, {}).get('outcome')
            if number in bad:
                if digest(path) != hashes[path]:
                    wrong.append('%s (%s) was changed' % (path, bad[number]))
                if outcome not in ('failed', 'refused'):
                    wrong.append('%s (%s): %s' % (path, bad[number], outcome))
            elif outcome not in ('done', 'already-done'):
                wrong.append('%s: %s: %s' % (path, outcome, finished.get(path, {}).get('message')))
        if code != 1:
            wrong.append('the last run ended with %s' % code)
        for name in os.listdir(images):
            if not name.endswith(('.qcow2', '.qcow2.winject-undo')):
                wrong.append('left over: %s' % name)
        good = [path for number, path in enumerate(names) if number not in bad]
        for path in chance.sample(good, min(args.sample, len(good))):
            checks = [[args.winject, 'check', path], ['qemu-img', 'check', '-q', path]]
            for check in checks:
                if run(*check).returncode:
                    wrong.append('%s: %s says no' % (path, check[0]))
            if args.judge:
                raw = os.path.join(folder, 'sample.raw')
                must('qemu-img', 'convert', '-O', 'raw', path, raw)
                with open(raw, 'rb') as file:
                    start = next(at for at in range(0, os.path.getsize(raw), 1 << 20) if is_ntfs(file, at))
                verdict = run(args.judge, raw, str(start))
                if verdict.returncode:
                    said = [line for line in verdict.stdout.splitlines() if ' PASS ' not in line]
                    wrong.append('%s: the judge says no: %s' % (path, '; '.join(said) or verdict.stderr.strip()))
                os.unlink(raw)

        # A last run over what is done: each costs its inspection.
        before = processor_seconds()
        last = time.monotonic()
        run(*command)
        again = time.monotonic() - last
        share_again = 1 - (last_outcomes(events)[3] - cpu) / (processor_seconds() - before)
        counts = collections.Counter(event['outcome'] for event in finished.values())
        print('| images | damaged | runs | killed | outcomes | images/s | again/s | items: KiB of the batch | not in workers |')
        print('|---|---|---|---|---|---|---|---|---|')
        print('| %d | %d | %d | 3 | %s | %.1f | %.1f | %s | %.1f %%, again %.1f %% |' % (
            args.count, len(bad), runs, ', '.join('%d %s' % (n, o) for o, n in sorted(counts.items())),
            args.count / seconds, args.count / again, ' '.join('%d: %d' % mark for mark in memory), share * 100, share_again * 100))
        for line in wrong[:50]:
            print('WRONG: ' + line)
        print('%d wrong' % len(wrong))
    finally:
        if not args.keep:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            print(folder)
    sys.exit(1 if wrong else 0)


if __name__ == '__main__':
    main()
