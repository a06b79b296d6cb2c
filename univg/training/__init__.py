"""What all trainings share: device, schedule, moving average, checkpoints and the loop."""
