"""What the real-process tests stand on: payload, targets, faults, processes."""
