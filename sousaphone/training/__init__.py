"""Training without Ray: loop, step, augmentation and metrics; a resumable trial with its checkpoints and watchdog."""
