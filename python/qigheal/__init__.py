"""qigheal watches a service from inside, says when healthy is gone, and repairs its repository."""
