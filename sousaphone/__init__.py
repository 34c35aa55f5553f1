"""SOUSAphone: which pretrained audio backbone, fine-tuned with LoRA, hears drum rudiments best?"""

__version__ = "0.1.0"
