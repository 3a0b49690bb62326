"""Smaller and faster networks: quantization, pruning and distillation."""
