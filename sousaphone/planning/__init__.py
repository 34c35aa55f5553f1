"""From options to a job: its trials, resources, speed, forecast and plan."""
