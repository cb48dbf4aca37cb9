"""`python -m qigheal`: the command line."""

from qigheal.cli import main

if __name__ == "__main__":
    main()
