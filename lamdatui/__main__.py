"""`python -m lamdatui`."""

from lamdatui.cli import main

if __name__ == "__main__":
    main()
