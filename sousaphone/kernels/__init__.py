"""How it is fast: faster ways to compute the same, on a CPU and on CUDA."""
