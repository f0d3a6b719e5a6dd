#!/bin/bash
# slurm.sh PROGRAM SOURCE.qcow2 DRIVERS FOLDER [ITEMS]
#
# deploy/slurm/fleet.sbatch on a Slurm of one node that this script starts in FOLDER (slurmctld, slurmd and munged of Debian): an
# array of 8 tasks over ITEMS (default 200) copies of SOURCE. Two tasks are killed while they work, then the node is restarted
# under all that runs. Slurm puts them back into the queue; the merged results must have every item exactly once, injected.
# Needs root; nothing outside FOLDER is written but what munged and Slurm need below /run. Exit: 0 all is well, 1 not.
set -euo pipefail
program=$(realpath "$1") source=$(realpath "$2") drivers=$(realpath "$3") folder=$(realpath -m "$4") items=${5:-200}
here=$(cd "$(dirname "$0")/../../.." && pwd)
mkdir -p "$folder"/{images,spool,state,results,log}
host=$(hostname -s)
started=()
stop() {
  code=$?
  trap - EXIT
  for pid in "${started[@]}"; do kill "$pid" 2>/dev/null || true; done
  wait
  exit $code
}
trap stop EXIT

for ((i = 0; i < items; i++)); do cp "$source" "$folder/images/$(printf 'vm-%04d.qcow2' $i)"; done
cat >"$folder/fleet.yaml" <<END
job: inject
images: [$folder/images/*.qcow2]
defaults:
  drivers: $drivers
  in_place: true
END

dd if=/dev/urandom of="$folder/munge.key" bs=1024 count=1 2>/dev/null
chmod 400 "$folder/munge.key"
mkdir -p "$folder/munge" && chmod 755 "$folder/munge"
munged --foreground --force --key-file "$folder/munge.key" --socket "$folder/munge/socket" --pid-file "$folder/munge/pid" \
  --log-file "$folder/munge/log" --seed-file "$folder/munge/seed" 2>"$folder/log/munged" &
started+=($!)
cat >"$folder/slurm.conf" <<END
ClusterName=winject
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmctldPort=16817
SlurmdPort=16818
AuthType=auth/munge
# A task that is put back waits as long as its credential is valid.
AuthInfo=socket=$folder/munge/socket,cred_expire=5
CryptoType=crypto/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/log/slurmctld
SlurmdLogFile=$folder/log/slurmd
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
JobRequeue=1
ReturnToService=2
SlurmdTimeout=10
MpiDefault=none
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc) State=UNKNOWN
PartitionName=all Nodes=$host Default=YES MaxTime=INFINITE State=UP
END
export SLURM_CONF=$folder/slurm.conf WINJECT=$program
wait_for() { for ((t = 0; t < ${2:-60}; t++)); do eval "$1" && return 0; sleep 1; done; echo "timeout: $1"; tail -5 "$folder"/log/*; return 1; }
wait_for "[ -S $folder/munge/socket ]"
slurmctld -D -c -f "$SLURM_CONF" 2>"$folder/log/ctld.err" & started+=($!)
slurmd -D -c -f "$SLURM_CONF" 2>"$folder/log/slurmd.err" & node=$!
started+=($node)
wait_for "sinfo -h -o %T 2>/dev/null | grep -q idle"

job=$(sbatch --parsable --array=0-7 --cpus-per-task=1 --mem=0 --output "$folder/log/task-%a" "$here/deploy/slurm/fleet.sbatch" "$folder/fleet.yaml" "$folder/results")
echo "job $job"
# The processes of a task: its shard's number is in their environment.
batches() { # prints the batches of this cluster that run
  for pid in $(pgrep -f "batch --config $folder/fleet.yaml"); do
    [ "$(readlink "/proc/$pid/exe")" = "$program" ] && echo "$pid"
  done
  return 0
}
killed=0
for ((t = 0; t < 600 && killed < 2; t++)); do
  sleep 0.3
  for pid in $(batches); do
    [ $killed -lt 2 ] && kill -KILL "$pid" && killed=$((killed + 1)) && echo "killed a batch: $pid" && sleep 1
  done
done
[ $killed = 2 ] || { echo "no two tasks to kill"; exit 1; }

# The node goes down under what runs, and comes back.
wait_for "[ -n \"\$(batches)\" ]"
steps=$(pgrep -f "slurmstepd: \[$job" || true)
running=$(batches)
kill -KILL $node $steps $running 2>/dev/null || true
echo "node restarted under: $(echo $running | wc -w) batches"
scontrol update nodename="$host" state=down reason=restart
sleep 2
slurmd -D -c -f "$SLURM_CONF" 2>>"$folder/log/slurmd.err" & started+=($!)
sleep 1
# It may be back already.
scontrol update nodename="$host" state=resume 2>/dev/null || true
wait_for "[ -z \"\$(squeue -h -j $job 2>/dev/null)\" ]" 900
for task in 0 1 2 3 4 5 6 7; do grep -c '"event":"begun"' "$folder/results/shard-$task/events.jsonl" | sed "s/^/shard $task: runs: /"; done

"$program" batch merge "$folder"/results/shard-* -o "$folder/merged"
python3 - "$folder" "$items" <<'END'
import collections, json, sys
folder, items = sys.argv[1], int(sys.argv[2])
lines = [json.loads(line) for line in open(f"{folder}/merged/items.jsonl")]
assert len(lines) == len({one["id"] for one in lines}) == items, len(lines)
outcomes = collections.Counter(one["outcome"] for one in lines)
assert set(outcomes) <= {"done", "already-done"}, outcomes
assert max(one["attempt"] for one in lines) > 1, "nothing was run again"
print("outcomes", dict(outcomes))
END
left=$(find "$folder/images" -type f ! -name '*.qcow2' ! -name '*.winject-undo' | head)
[ -z "$left" ] || { echo "left behind: $left"; exit 1; }
for image in $(find "$folder/images" -name '*.qcow2' | sort | awk 'NR % 20 == 1'); do "$program" check "$image" >/dev/null || { echo "does not boot: $image"; exit 1; }; done
echo "well: $items items"
