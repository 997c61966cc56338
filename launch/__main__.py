"""`python -m reconverge.launch`."""

from reconverge.launch.cli import enter

if __name__ == "__main__":
    enter()
