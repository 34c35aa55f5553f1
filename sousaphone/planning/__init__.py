"""What will happen: from options to a job; its plan, forecast, speed and resources."""
