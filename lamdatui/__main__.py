"""`python -m lamdatui`."""

from lamdatui.cli.app import main

if __name__ == "__main__":
    main()
