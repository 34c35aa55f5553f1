"""SOUSAphone: compares pretrained audio backbones, fine-tuned with LoRA, on the 40 drum rudiments."""

__version__ = "0.1.0"
