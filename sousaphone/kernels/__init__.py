"""Faster implementations of LoRA layers and Transformer parts, for CPU and CUDA."""
