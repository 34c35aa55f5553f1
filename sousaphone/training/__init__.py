"""How it learns: loop, step, augmentation, metrics; a trial's life, its checkpoints and its watchdog. No Ray."""
