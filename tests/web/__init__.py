"""The web interface: every test over every framework that carries it."""
