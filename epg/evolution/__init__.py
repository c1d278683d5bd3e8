"""The outer loop: perturbations, fitness shaping, EvoTorch's PGPE. Knows neither MuJoCo nor MPI."""
