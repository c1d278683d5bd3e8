#!/usr/bin/env bash
# End the SLURM that start.sh FOLDER has started, with all its jobs.
set -uo pipefail
cd "$1"
export SLURM_CONF=$PWD/slurm.conf
scancel --user=root --signal=KILL --full 2> /dev/null
scancel --user=root 2> /dev/null
sleep 0.5
for daemon in slurmd slurmctld munge; do
    if [ -f "$daemon.pid" ]; then
        pid=$(cat "$daemon.pid")
        kill "$pid" 2> /dev/null
        for _ in $(seq 100); do kill -0 "$pid" 2> /dev/null && sleep 0.1; done
    fi
done
exit 0
