#!/usr/bin/env python3
"""controller.py PROGRAM MANIFESTS SOURCE.qcow2 DRIVERS FOLDER [ITEMS]

A double of the Kubernetes Job controller and its kubelet. It makes ITEMS (default 24) images in FOLDER, and runs the Job of
MANIFESTS (deploy/kubernetes) over them: for each index the same command with the same environment and the same volumes, in a root of its own that
holds the program alone (deploy/oci), which is read-only, as user 107 without capabilities and without a network (bwrap). It
applies the podFailurePolicy and backoffLimitPerIndex to the exit codes as the controller does, and disturbs the run:

- the first pod of index 0 is killed while it works (137),
- index 1 is started twice at once, as it happens when a node is lost,
- the first pod of index 2 is evicted: SIGTERM, the grace period, and the condition DisruptionTarget,
- one image is none (its index fails for good), and one is in use until its index has failed once (75).

Then the results are merged: every item exactly once, each good image injected. Prints one line for each pod, and figures.
Needs root, bwrap and PyYAML. Exit: 0 all is well, 1 something is not.
"""
import glob, json, os, random, shutil, signal, subprocess, sys, threading, time
import yaml

program, manifests, source, drivers, folder = map(os.path.abspath, sys.argv[1:6])
items = int(sys.argv[6]) if len(sys.argv) > 6 else 24
job = yaml.safe_load(open(os.path.join(manifests, "job.yaml")))["spec"]
config = open(os.path.join(manifests, "fleet.yaml")).read()
pod = job["template"]["spec"]
container = pod["containers"][0]
random.seed(7)
faults = []

# The volumes, and the root of the container as deploy/oci/build.sh makes it.
os.makedirs(folder)
volumes = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
place = {path: os.path.join(folder, path.strip("/")) for path in volumes}
for path in place.values():
    os.makedirs(path)
root = os.path.join(folder, "root")
for path in ("usr/bin", "data", "tmp"):
    os.makedirs(os.path.join(root, path))
shutil.copy(program, os.path.join(root, "usr/bin/winject"))
open(os.path.join(place["/config"], "fleet.yaml"), "w").write(config)
shutil.copytree(drivers, place["/drivers"], dirs_exist_ok=True)
for number in range(items):
    shutil.copy(source, os.path.join(place["/images"], f"vm-{number:03}.qcow2"))
bad = os.path.join(place["/images"], "vm-bad.qcow2")
open(bad, "wb").write(b"no image" * 4096)
for path in [folder, *place.values()]:
    os.chown(path, 107, 107)
    for base, folders, files in os.walk(path):
        for name in folders + files:
            os.chown(os.path.join(base, name), 107, 107)
subprocess.run(["chown", "-R", "0:0", root], check=True)
os.chmod(place["/tmp"], 0o777)


def command(index):
    """The pod of an index."""
    environment = {"JOB_COMPLETION_INDEX": str(index)}
    environment |= {one["name"]: one["value"] for one in container.get("env", [])}
    words = ["setpriv", "--reuid=107", "--regid=107", "--clear-groups", "--no-new-privs",
             "bwrap", "--unshare-all", "--die-with-parent", "--cap-drop", "ALL", "--clearenv", "--ro-bind", root, "/"]
    # A program that is not static needs its libraries.
    for library in ("/lib", "/lib64", "/usr/lib"):
        if "static" not in subprocess.run(["file", "-L", program], capture_output=True, text=True).stdout:
            os.makedirs(root + library, exist_ok=True)
            words += ["--ro-bind", library, library]
    for path, mount in volumes.items():
        os.makedirs(root + path, exist_ok=True)
        words += ["--ro-bind" if mount.get("readOnly") else "--bind", place[path], path]
    for path in ("/proc", "/dev"):
        os.makedirs(root + path, exist_ok=True)
    words += ["--proc", "/proc", "--dev", "/dev", "--chdir", "/data"]
    for name, value in environment.items():
        words += ["--setenv", name, value]
    arguments = container["args"]
    for name, value in environment.items():
        arguments = [word.replace(f"$({name})", value) for word in arguments]
    return words + ["--", "/usr/bin/winject", *arguments]


def action(code, conditions):
    """What the first rule that matches says; `Count` if none does, as in Kubernetes."""
    for rule in job["podFailurePolicy"]["rules"]:
        if any(one["type"] in conditions for one in rule.get("onPodConditions", [])):
            return rule["action"]
        codes = rule.get("onExitCodes")
        if codes and codes["containerName"] == container["name"] and (code in codes["values"]) == (codes["operator"] == "In"):
            return rule["action"]
    return "Count"


def start(index):
    log = open(os.path.join(folder, f"index-{index}.log"), "a")
    return subprocess.Popen(command(index), stdout=log, stderr=log, start_new_session=True)


def workers_of(process):
    """The processes of a pod, the batch among them."""
    found, todo = [], [process.pid]
    while todo:
        pid = todo.pop()
        try:
            children = open(f"/proc/{pid}/task/{pid}/children").read().split()
        except OSError:
            continue
        for child in map(int, children):
            found.append(child)
            todo.append(child)
    return found


def batch_of(process):
    """The batch of a pod, once it is there."""
    for _ in range(5000):
        for pid in workers_of(process):
            try:
                if b"--shard=auto" in open(f"/proc/{pid}/cmdline", "rb").read() and os.readlink(f"/proc/{pid}/exe").endswith("/usr/bin/winject"):
                    return pid
            except OSError:
                pass
        time.sleep(0.001)
    return None


def images_of(index):
    """The good images of an index, as the program itself divides them."""
    words = command(index)[: -len(container["args"]) - 1]
    shard = subprocess.run(words + ["/usr/bin/winject", "batch", "inspect", "/images/*.qcow2", "--shard=%d/%d" % (index, job["completions"]), "--json"],
                           capture_output=True, text=True)
    planned = [json.loads(line) for line in shard.stdout.splitlines()]
    return [os.path.join(place["/images"], os.path.basename(one["image"])) for one in planned if one.get("event") == "planned" and "bad" not in one["image"]]


def start_and_kill(index):
    """A pod that was killed at a moment of its work. One that ended before that has its images given back, and starts again."""
    for _ in range(50):
        process = start(index)
        if batch_of(process):
            time.sleep(random.random() / 10)
        pids = workers_of(process)
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        if process.wait() != 0:
            return process
        shutil.rmtree(os.path.join(place["/results"], f"shard-{index}"))
        for image in images_of(index):
            for left in glob.glob(image + "?*"):
                os.unlink(left)
            shutil.copyfile(source, image)
    return process


def end(process):
    """The exit code of a pod; that of a container which ended by a signal is 128 + its number."""
    code = process.wait()
    return code if code >= 0 else 128 - code


pods, state = [], {}
lock = threading.Semaphore(job["parallelism"])


def run_index(index):
    failures = attempt = 0
    while True:
        attempt += 1
        with lock:
            conditions, twin = set(), None
            process = start_and_kill(index) if attempt == 1 and index == 0 else start(index)
            if attempt == 1 and index == 1:
                twin = start(index)
            if attempt == 1 and index == 2:
                batch = batch_of(process)
                time.sleep(random.random() / 10)
                conditions.add("DisruptionTarget")
                if batch:
                    try:
                        os.kill(batch, signal.SIGTERM)
                    except ProcessLookupError:
                        pass
                try:
                    process.wait(pod["terminationGracePeriodSeconds"])
                except subprocess.TimeoutExpired:
                    faults.append("index 2: did not end within the grace period")
                    process.kill()
            code = end(process)
            if twin:
                other = end(twin)
                pods.append((index, attempt, other, "the twin"))
                # The controller takes one of the two; here, the one that came further.
                code = min(code, other) if 0 in (code, other) or 1 in (code, other) else code
        if index == 3 and attempt == 1:
            holder.terminate()
            holder.wait()
        what = "Succeeded" if code == 0 else action(code, conditions)
        pods.append((index, attempt, code, what))
        if what in ("Succeeded", "FailIndex"):
            state[index] = what
            return
        failures += what == "Count"
        if failures > job["backoffLimitPerIndex"] or attempt > 20:
            state[index] = "Failed"
            return


# One image of index 3 is in use by another program, as QEMU would lock it (byte 100 and 201 of an OFD lock).
planned = images_of(3)
in_use = planned[0] if planned else bad
HOLD = """
import fcntl, struct, sys, time
file = open(sys.argv[1], "r+b")
for start in (100, 101, 103, 201, 203):
    fcntl.fcntl(file, 37, struct.pack("hhqqi4x", fcntl.F_RDLCK, 0, start, 1, 0))
print("held", flush=True)
time.sleep(600)
"""
holder = subprocess.Popen([sys.executable, "-c", HOLD, in_use], stdout=subprocess.PIPE, text=True)
holder.stdout.readline()

begun = time.time()
threads = [threading.Thread(target=run_index, args=(index,)) for index in range(job["completions"])]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
holder.kill()
for index, attempt, code, what in sorted(pods):
    print(f"index {index} attempt {attempt}: exit {code}: {what}")

merged = subprocess.run([program, "batch", "merge", *glob.glob(os.path.join(place["/results"], "shard-*")), "-o", os.path.join(folder, "merged"), "--json"],
                        capture_output=True, text=True)
answer = json.loads(merged.stdout)
if merged.returncode != 0 or not answer["is_whole"] or answer["items"] != items + 1:
    faults.append(f"the merged results: exit {merged.returncode}: {answer}")
lines = [json.loads(line) for line in open(os.path.join(folder, "merged/items.jsonl"))]
if len({one["id"] for one in lines}) != len(lines) or len(lines) != items + 1:
    faults.append(f"{len(lines)} lines in items.jsonl")
for one in lines:
    is_bad = one["image"].endswith("vm-bad.qcow2")
    if (one["outcome"] in ("done", "already-done")) == is_bad:
        faults.append(f"{one['image']}: {one['outcome']}: {one['message']}")
if open(bad, "rb").read() != b"no image" * 4096:
    faults.append("the file that is not an image was changed")
left = [name for name in os.listdir(place["/images"]) if not name.endswith((".qcow2", ".winject-undo"))]
if left:
    faults.append(f"left behind: {left}")
failed = {index for index, what in state.items() if what != "Succeeded"}
if len(failed) != 1 or state[min(failed)] != "FailIndex":
    faults.append(f"indexes that failed: {[(index, state[index]) for index in failed]}, expected the one with vm-bad")
codes = {(index, attempt): code for index, attempt, code, what in pods if what != "the twin"}
if codes[0, 1] != 137 or codes[3, 1] != 75:
    faults.append(f"index 0 was killed ({codes[0, 1]}), index 3 has an image in use ({codes[3, 1]})")
print("\n".join(faults) or f"well: {items + 1} items, {len(pods)} pods, {time.time() - begun:.0f} s")
sys.exit(1 if faults else 0)
