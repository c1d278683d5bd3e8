"""Many runs on many machines: SLURM jobs, supervision, status, doctor."""
