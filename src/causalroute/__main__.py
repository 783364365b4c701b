"""`python -m causalroute`: the same as the command `causalroute`."""

from causalroute.cli import main

if __name__ == "__main__":
    main()
