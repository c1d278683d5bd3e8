#!/usr/bin/env bash
# Start a SLURM of one node for the tests, as root: 12 claimed CPUs and two GPUs that are none.
#   tests/slurm/start.sh FOLDER     then: export SLURM_CONF=FOLDER/slurm.conf
# Needs slurm-wlm and munge (apt-get install --no-install-recommends slurm-wlm munge), neither
# systemd nor cgroups. stop.sh FOLDER ends it.
set -euo pipefail
mkdir -p "$1" && cd "$1" && folder=$PWD
host=$(hostname -s)

mkdir -m 0700 munge
mkdir state spool
head -c 1024 /dev/urandom > munge/key
mkdir -m 0755 socket  # in a folder of its own: all must reach it, and nobody the key
chmod 0600 munge/key
munged --force --key-file="$folder/munge/key" --socket="$folder/socket/munge" \
    --pid-file="$folder/munge.pid" --log-file="$folder/munge/log" --seed-file="$folder/munge/seed"

for gpu in 0 1; do mknod "gpu$gpu" c 1 3; done
echo "NodeName=$host Name=gpu File=$folder/gpu[0-1]" > gres.conf

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}
# Job numbers do not repeat: MPICH names shared memory after job and step, and what a killed job has
# left of it makes the next of that name hang.
cat > slurm.conf << END
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$(free_port)
SlurmdPort=$(free_port)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/socket/munge
CredType=cred/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
SlurmctldParameters=preempt_send_user_signal
GresTypes=gpu
KillWait=5
ReturnToService=2
JobRequeue=1
FirstJobId=$((RANDOM + 1))
SchedulerParameters=sched_interval=1
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
NodeName=$host NodeAddr=127.0.0.1 CPUs=12 RealMemory=4096 Gres=gpu:2
PartitionName=low Nodes=$host Default=YES PriorityTier=1 GraceTime=20
PartitionName=high Nodes=$host PriorityTier=10 PreemptMode=OFF
END

slurmctld -c -f "$folder/slurm.conf"
slurmd -c -f "$folder/slurm.conf" -N "$host"
export SLURM_CONF=$folder/slurm.conf
for _ in $(seq 100); do
    if sinfo --noheader --format=%T 2> /dev/null | grep -q idle; then exit 0; fi
    sleep 0.1
done
echo "SLURM does not come up; see $folder/slurmctld.log and slurmd.log" >&2
exit 1
