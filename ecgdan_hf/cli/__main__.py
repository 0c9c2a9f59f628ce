"""`python -m ecgdan_hf.cli`: the same as `ecgdan`."""

from ecgdan_hf.cli.main import main

if __name__ == "__main__":
    main()
