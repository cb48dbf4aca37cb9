"""`python -m qigheal`: the command line, by the interpreter that is named and not by what PATH finds."""

from qigheal.cli import main

if __name__ == "__main__":
    main()
