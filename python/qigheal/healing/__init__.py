"""The healing chain. Each stage takes frozen records and returns the next; `engine` alone knows the order."""
