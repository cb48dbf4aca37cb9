"""What is learned for detection; pure functions of a window; no file, no clock."""
