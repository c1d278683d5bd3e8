#!/usr/bin/env bash
# Evolve on this machine: one rank for each core, and one for the master, which is idle.
#   mpi_launch/local.sh configs/quickstart.yaml --run runs/quickstart
# The same as `epg train … --ranks N`, for those who start MPI by hand.
set -euo pipefail
exec mpirun -n "$(( $(nproc) + 1 ))" epg train "$@"
