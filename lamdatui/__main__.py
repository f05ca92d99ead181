"""`python -m lamdatui`."""

from lamdatui.cli.main import main

if __name__ == "__main__":
    main()
