"""`python -m cloudseg` is the command `cloudseg`."""

from cloudseg.cli import main

if __name__ == "__main__":
    main()
